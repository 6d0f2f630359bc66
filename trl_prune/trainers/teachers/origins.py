"""Where a student comes from: its folder, its dense root, and the provenance it carries on."""

import shutil
from pathlib import Path

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from trl_prune.checkpoints import PROVENANCE, Provenance, locate, read_provenance
from trl_prune.errors import InputError
from trl_prune.trainers.trl_names import config_model_id


# A model without the file, and a hub that cannot be asked, are no errors here.
WHERE_THERE_IS_ONE = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}


def checkpoint_of(model: object) -> Path | None:
    """Return the folder a model came from; of one from the hub the folder in its cache, where it has a provenance."""
    name = model if isinstance(model, str) else config_model_id(model.config)
    if not name or Path(name).is_dir():
        return Path(name) if name else None
    commit = None if isinstance(model, str) else getattr(model.config, "_commit_hash", None)
    try:
        path = cached_file(name, PROVENANCE, revision=commit, **WHERE_THERE_IS_ONE)
    except OSError:
        return None
    return Path(path).parent if path else None


def provenance_of(student: object, teacher: PreTrainedConfig) -> Provenance | None:
    """Return what a student says it was cut from, where the teacher is that, or has as many blocks.

    A dense model that was fine-tuned or corrected still has the blocks that the student's were; another has not.
    """
    provenance = _said_by(student)
    if provenance is None:
        return None
    blocks = teacher.get_text_config().num_hidden_layers
    return provenance if provenance.dense.get("num_hidden_layers", blocks) == blocks else None


def _said_by(student: object) -> Provenance | None:
    folder = checkpoint_of(student)
    return read_provenance(folder) if folder else None


def dense_of(student: object, otherwise: str) -> Path:
    """Return the checkpoint folder of the dense model that the student's provenance names, at the commit it names.

    Args:
        student: the student, or the folder or hub id it is in.
        otherwise: what else the user can do, for the error.

    Raises:
        InputError: there is no provenance.
    """
    provenance = _said_by(student)
    if provenance is None:
        name = student if isinstance(student, str) else checkpoint_of(student) or type(student).__name__
        raise InputError(
            f"`teacher_model` was left out, and the student {name} has no "
            f"{PROVENANCE} that names its dense model; give `teacher_model`, or {otherwise}"
        )
    return locate(provenance.dense["path"], provenance.dense["commit"])


def carry_provenance(source: Path | None, target: Path) -> None:
    """Copy a student's provenance into a folder it is saved to."""
    if source is not None and (source / PROVENANCE).is_file() and not target.samefile(source):
        shutil.copyfile(source / PROVENANCE, target / PROVENANCE)
