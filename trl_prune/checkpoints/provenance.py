"""`trl_prune.json`: the dense model a checkpoint descends from, the units it keeps and the edits to its weights."""

import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from trl_prune.checkpoints.loading import load_config, num_blocks
from trl_prune.checkpoints.reading import file_hash, hub_commit
from trl_prune.checkpoints.writing import write_json
from trl_prune.errors import InputError, first_line


PROVENANCE = "trl_prune.json"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide what a checkpoint holds."""
    return {name: version(name) for name in ("trl-prune", "trl", "transformers", "peft", "torch")}


@dataclass(frozen=True)
class Provenance:
    """What a checkpoint descends from, stored beside its config.json.

    Attributes:
        dense: the unpruned model at the start of the chain: path or hub id, hub commit, config hash, number of layers.
        parent: the checkpoint this one was made from.
        keep: for each pruned axis the kept indices, always counted in the dense model.
        edits: closed-form changes to kept weights, in order.
        versions: the versions of the libraries that wrote it.
    """

    dense: dict[str, str | int | None]
    parent: str
    keep: dict[str, list] = field(default_factory=dict)
    edits: list[dict] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=library_versions)


def read_provenance(folder: str | Path) -> Provenance | None:
    """Return the provenance beside a checkpoint, or None for a dense model, which has none."""
    path = Path(folder) / PROVENANCE
    if not path.is_file():
        return None
    try:
        return Provenance(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a provenance file of trl-prune: {first_line(error)}") from error


def write_provenance(provenance: Provenance, folder: str | Path) -> None:
    """Write the provenance beside a checkpoint."""
    write_json(Path(folder) / PROVENANCE, asdict(provenance))


def dense_root(folder: Path, name: str) -> dict[str, str | int | None]:
    """Return the `dense` entry of checkpoints made from this one: that of its own provenance, or itself."""
    provenance = read_provenance(folder)
    if provenance is not None:
        return provenance.dense
    path = str(folder.resolve()) if Path(name).expanduser().exists() else name
    return {
        "path": path,
        "commit": hub_commit(folder),
        "config_hash": file_hash(folder / "config.json"),
        "num_hidden_layers": num_blocks(load_config(folder).get_text_config()),
    }
