"""The run folder: which run it holds, its recipe, the lock on it, and what each stage wrote there.

A stage's folder holds `result.json`, which is written last. It names the inputs and settings that the outputs come
from; a stage whose result still matches them is skipped. An interrupted stage left `pending.json` with the same
content and is resumed; anything else in its folder comes from another recipe and is deleted.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from trl_prune.checkpoints import file_hash, fingerprint, write_json, write_text
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe


NOTES, RECIPE, LOCK = "run.json", "recipe.yaml", ".lock"
RESULT, PENDING, TIMING = "result.json", "pending.json", "timing.json"
logger = logging.getLogger("trl_prune")


@dataclass(frozen=True)
class StageOutput:
    """What a stage returns when it is done.

    Attributes:
        outputs: names to paths, relative to the stage's folder.
        metrics: numbers and tables that depend on inputs and settings alone.
        timing: what depends on the machine.
        volatile: names of outputs whose bytes depend on the machine (a page with measured speeds); they get no
            fingerprint, so that an interrupted and resumed run ends with the results of an uninterrupted one.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    timing: dict = field(default_factory=dict)
    volatile: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """The content of `result.json`."""

    stage: str
    inputs: dict[str, str]
    config_hash: str
    outputs: dict[str, dict[str, str | None]]
    metrics: dict


def verb(stage: str) -> str:
    """Return a stage's name as the command line spells it."""
    return stage.replace("_", "-")


def config_hash(settings: object) -> str:
    """Return a hash of JSON-like settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path):
        self.path = path
        self._unchanged: set[tuple[Path, str]] = set()

    @contextmanager
    def lock(self, model: str) -> Iterator["RunFolder"]:
        """Create the folder for a run on a model, or open an earlier run of it, and lock it for this process.

        Raises:
            InputError: it holds something else or another model's run, or another process uses it.
        """
        self.check(model)
        self._create()
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except PermissionError as error:
            raise InputError(f"the output folder {self.path} cannot be written to") from error
        except Timeout as error:
            raise InputError(f"the output folder {self.path} is in use by another trl-prune process") from error
        try:
            self._remove_parts()
            self.note(model=model)
            yield self
        finally:
            lock.release()

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the output folder {self.path} cannot be made: {error.strerror}") from error

    def _remove_parts(self) -> None:
        """Remove what a killed process was writing; nobody else writes here while the lock is held."""
        for path in list(self.path.rglob(".*.part")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def check(self, model: str) -> None:
        """Check that the folder is empty or holds a run on a model.

        Raises:
            InputError: it is a file, holds something else, or holds another model's run.
        """
        if self.path.is_file():
            raise InputError(f"the output folder {self.path} is a file")
        if not self.path.is_dir() or not any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            return
        noted = self.notes().get("model")
        if noted is None:
            raise InputError(f"the output folder {self.path} is not empty and no trl-prune run; name a new one")
        if noted != model:
            raise InputError(
                f"the output folder {self.path} holds a run of model {noted!r}, not {model!r}; name another"
            )

    def notes(self) -> dict:
        """Return what was resolved once for the whole run: model, commits, dtype."""
        path = self.path / NOTES
        return _read_json(path) if path.is_file() else {}

    def note(self, **values: object) -> None:
        """Add to the notes."""
        notes = self.notes()
        if notes | values != notes:
            write_json(self.path / NOTES, notes | values)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the recipe with its overrides, as it was given last, so that the folder can be read without it."""
        text = yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
        if not self.recipe_path.is_file() or self.recipe_path.read_text(encoding="utf-8") != text:
            write_text(self.recipe_path, text)

    @property
    def recipe_path(self) -> Path:
        """The copy of the recipe."""
        return self.path / RECIPE

    def stage_dir(self, stage: str, part: str = "") -> Path:
        """Return the folder of a stage, or of one part of it (an arm, a model)."""
        return self.path / stage / part if part else self.path / stage

    def result(self, stage: str, part: str = "") -> Result | None:
        """Return a stage's result, or None if there is none yet."""
        path = self.stage_dir(stage, part) / RESULT
        return Result(**_read_json(path)) if path.is_file() else None

    def require(self, stage: str, part: str = "") -> Result:
        """Return a stage's result.

        Raises:
            InputError: there is none yet.
        """
        result = self.result(stage, part)
        if result is None:
            raise InputError(
                f"{self.stage_dir(stage, part)} has no result yet: run `trl-prune {verb(stage)}` first, or leave out "
                "--only"
            )
        return result

    def result_hash(self, stage: str, part: str = "") -> str:
        """Return the hash by which later stages name a result as their input."""
        self.require(stage, part)
        return file_hash(self.stage_dir(stage, part) / RESULT)[:16]

    def output(self, stage: str, name: str, part: str = "") -> Path:
        """Return the path of a stage's output.

        Raises:
            InputError: there is none yet, or it is not what the stage wrote (a disk's fault, an edit): of weight files
                samples are compared, of all others every byte.
        """
        output = self.require(stage, part).outputs[name]
        path, written = self.stage_dir(stage, part) / output["path"], output["fingerprint"]
        if written is not None and path.exists() and (path, written) not in self._unchanged:
            if _fingerprint(path) != written:
                folder = self.stage_dir(stage, part)
                raise InputError(f"{path} has changed since it was written; delete {folder}, and it is made again")
            self._unchanged.add((path, written))
        return path

    def is_done(self, stage: str, part: str, inputs: dict[str, str], settings: object) -> bool:
        """Return whether there is a result for these inputs and settings, and all its outputs exist."""
        result = self.result(stage, part)
        matches = result is not None and result.inputs == inputs and result.config_hash == config_hash(settings)
        folder = self.stage_dir(stage, part)
        return matches and all((folder / output["path"]).exists() for output in result.outputs.values())

    def begin(
        self, stage: str, part: str, inputs: dict[str, str], settings: object, keeps: Collection[str] = ()
    ) -> Path:
        """Return a stage's folder: with what an interrupted attempt at the same work left there, or empty.

        Args:
            stage: the stage.
            part: its part.
            inputs: what it reads.
            settings: what else determines its outputs.
            keeps: names in the folder that stay in any case.
        """
        folder = self.stage_dir(stage, part)
        pending = {"inputs": inputs, "config_hash": config_hash(settings)}
        path = folder / PENDING
        if not (path.is_file() and json.loads(path.read_text()) == pending):
            if folder.exists():
                logger.info("%s has other %s and is redone", folder, self._changes(stage, part, inputs))
            self._clear(folder, keeps)
            write_json(path, pending)
        return folder

    def _changes(self, stage: str, part: str, inputs: dict[str, str]) -> str:
        """Return what of a stage is not as when it was done, in words."""
        result = self.result(stage, part)
        if result is None:
            return "inputs or settings"
        names = [name for name in result.inputs | inputs if result.inputs.get(name) != inputs.get(name)]
        return f"inputs ({', '.join(names)})" if names else "settings"

    def _clear(self, folder: Path, keeps: Collection[str]) -> None:
        if folder.exists():
            (folder / RESULT).unlink(missing_ok=True)  # first, so that a kill in the middle leaves no result behind
            for path in folder.iterdir():
                if path.name not in keeps:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)

    def finish(self, stage: str, part: str, output: StageOutput) -> None:
        """Write a stage's result, last and atomically."""
        folder = self.stage_dir(stage, part)
        pending = json.loads((folder / PENDING).read_text())
        outputs = {
            name: {"path": path, "fingerprint": None if name in output.volatile else _fingerprint(folder / path)}
            for name, path in output.outputs.items()
        }
        result = Result(stage, pending["inputs"], pending["config_hash"], outputs, output.metrics)
        write_json(folder / TIMING, output.timing)
        write_json(folder / RESULT, asdict(result))
        (folder / PENDING).unlink()


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is corrupt; delete it, and its stage is done again") from error


def _fingerprint(path: Path) -> str:
    return fingerprint(path) if path.is_dir() else file_hash(path)[:16]
