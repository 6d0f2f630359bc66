"""Where a student comes from: its folder, its dense root, and the provenance it carries on."""

import shutil
from pathlib import Path

from trl_prune.checkpoints import PROVENANCE, Provenance, locate, read_provenance
from trl_prune.errors import InputError
from trl_prune.trainers.trl_names import config_model_id


def checkpoint_of(model: object) -> Path | None:
    """Return the folder a model came from, where it is one here."""
    name = model if isinstance(model, str) else config_model_id(model.config)
    return Path(name) if name and Path(name).is_dir() else None


def provenance_of(student: object) -> Provenance | None:
    """Return what a student says it was cut from, None where it says nothing."""
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
    provenance = provenance_of(student)
    if provenance is None:
        raise InputError(
            f"`teacher_model` was left out, and the student {checkpoint_of(student) or type(student).__name__} has no "
            f"{PROVENANCE} that names its dense model; give `teacher_model`, or {otherwise}"
        )
    return locate(provenance.dense["path"], provenance.dense["commit"])


def carry_provenance(source: Path | None, target: Path) -> None:
    """Copy a student's provenance into a folder it is saved to."""
    if source is not None and (source / PROVENANCE).is_file():
        shutil.copyfile(source / PROVENANCE, target / PROVENANCE)
