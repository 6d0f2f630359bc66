"""The run folder: whose it is, who is in it, and what each stage left there.

A stage's folder holds `result.json`, written last. It says which inputs and settings the outputs came from, so a stage
whose result still fits is skipped. A stage that was cut off left `pending.json` with the same words and is gone on
with; anything else found in its folder is of another recipe and is cleared.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from trl_prune.checkpoints import file_hash
from trl_prune.checkpoints import fingerprint
from trl_prune.checkpoints import write_json
from trl_prune.errors import InputError


MARKER, LOCK, RESULT, PENDING, TIMING = "run.json", ".lock", "result.json", "pending.json", "timing.json"
logger = logging.getLogger("trl_prune")


@dataclass(frozen=True)
class StageOutput:
    """What a stage hands back.

    Attributes:
        outputs: names to paths, relative to the stage's folder.
        metrics: numbers and tables that follow from inputs and settings alone.
        timing: what depends on the machine.
        volatile: names of outputs whose bytes depend on the machine (a page that shows measured speed); they get no
            fingerprint, so that a broken and resumed run ends with the results of an unbroken one.
    """

    outputs: dict[str, str] = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    timing: dict = field(default_factory=dict)
    volatile: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """What `result.json` holds."""

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
    """A folder that one run owns."""

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def held(self, model: str) -> Iterator["RunFolder"]:
        """Hold the folder for a run on a model, making it where there is none.

        Raises:
            InputError: it holds something else or another model's run, or another process is in it.
        """
        self.check(model)
        self._make()
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except PermissionError as error:
            raise InputError(f"the output folder {self.path} cannot be written to") from error
        except Timeout as error:
            raise InputError(f"the output folder {self.path} is in use by another trl-prune process") from error
        try:
            self.note(model=model)
            yield self
        finally:
            lock.release()

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the output folder {self.path} cannot be made: {error.strerror}") from error

    def check(self, model: str) -> None:
        """Check that the folder is free for, or already holds, a run on a model.

        Raises:
            InputError: it is a file, holds something else, or holds another model's run.
        """
        if self.path.is_file():
            raise InputError(f"the output folder {self.path} is a file")
        if not self.path.is_dir() or not any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            return
        held = self.notes().get("model")
        if held is None:
            raise InputError(f"the output folder {self.path} is not empty and no trl-prune run; name a new one")
        if held != model:
            raise InputError(
                f"the output folder {self.path} holds a run of model {held!r}, not {model!r}; name another"
            )

    def notes(self) -> dict:
        """Return what was resolved once for the whole run."""
        marker = self.path / MARKER
        return _read_json(marker) if marker.is_file() else {}

    def note(self, **facts: object) -> None:
        """Add to what was resolved once for the whole run."""
        notes = self.notes()
        if notes | facts != notes:
            write_json(self.path / MARKER, notes | facts)

    def stage_dir(self, stage: str, unit: str = "") -> Path:
        """Return a stage's folder, or that of one unit (an arm, a model) of it."""
        return self.path / stage / unit if unit else self.path / stage

    def result(self, stage: str, unit: str = "") -> Result | None:
        """Return a stage's result, or None where it has none yet."""
        path = self.stage_dir(stage, unit) / RESULT
        return Result(**_read_json(path)) if path.is_file() else None

    def needed(self, stage: str, unit: str = "") -> Result:
        """Return a stage's result.

        Raises:
            InputError: it has none yet.
        """
        result = self.result(stage, unit)
        if result is None:
            raise InputError(
                f"{self.stage_dir(stage, unit)} has no result yet: run `trl-prune {verb(stage)}` first, or `run`"
            )
        return result

    def result_hash(self, stage: str, unit: str = "") -> str:
        """Return the hash by which later stages name a result as their input."""
        self.needed(stage, unit)
        return file_hash(self.stage_dir(stage, unit) / RESULT)[:16]

    def output(self, stage: str, name: str, unit: str = "") -> Path:
        """Return the path of a stage's output."""
        return self.stage_dir(stage, unit) / self.needed(stage, unit).outputs[name]["path"]

    def is_done(self, stage: str, unit: str, inputs: dict[str, str], settings: object) -> bool:
        """Return whether a result is there that fits inputs and settings, its outputs in place."""
        result = self.result(stage, unit)
        fits = result is not None and result.inputs == inputs and result.config_hash == config_hash(settings)
        folder = self.stage_dir(stage, unit)
        return fits and all((folder / told["path"]).exists() for told in result.outputs.values())

    def begin(self, stage: str, unit: str, inputs: dict[str, str], settings: object) -> Path:
        """Return a stage's folder ready for work: with what the same work left unfinished, or empty."""
        folder = self.stage_dir(stage, unit)
        told = {"inputs": inputs, "config_hash": config_hash(settings)}
        pending = folder / PENDING
        if not (pending.is_file() and json.loads(pending.read_text()) == told):
            self._clear(folder)
            write_json(pending, told)
        return folder

    def _clear(self, folder: Path) -> None:
        if folder.exists():
            logger.info("%s is of other inputs or settings and is done anew", folder)
            (folder / RESULT).unlink(missing_ok=True)  # first, so that a kill in the middle leaves no result behind
            shutil.rmtree(folder)
        folder.mkdir(parents=True)

    def finish(self, stage: str, unit: str, outcome: StageOutput) -> None:
        """Write a stage's result, last and atomically."""
        folder = self.stage_dir(stage, unit)
        told = json.loads((folder / PENDING).read_text())
        outputs = {
            name: {"path": path, "fingerprint": None if name in outcome.volatile else _fingerprint(folder / path)}
            for name, path in outcome.outputs.items()
        }
        result = Result(stage, told["inputs"], told["config_hash"], outputs, outcome.metrics)
        write_json(folder / TIMING, outcome.timing)
        write_json(folder / RESULT, asdict(result))
        (folder / PENDING).unlink()


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is corrupt; delete it, and its stage is done again") from error


def _fingerprint(path: Path) -> str:
    return fingerprint(path) if path.is_dir() else file_hash(path)[:16]
