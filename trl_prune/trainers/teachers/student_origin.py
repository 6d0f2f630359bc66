"""The checkpoint a student was loaded from, its provenance and its dense root."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from trl_prune.checkpoints import PROVENANCE, Provenance, locate, read_provenance
from trl_prune.errors import InputError
from trl_prune.trainers.trl_names import config_model_id


# A repository without the file, or a hub that cannot be reached, means no provenance, not an error.
OPTIONAL_FILE = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
    "_raise_exceptions_for_gated_repo": False,
}


@dataclass(frozen=True)
class StudentOrigin:
    """The checkpoint a student was loaded from.

    Resolved once for each trainer, because a student on the hub needs a request for it.

    Attributes:
        name: the student's folder or hub id; the class of a model in memory that has neither.
        folder: the checkpoint folder, for a student on the hub that with its provenance in the local cache; None for a
            model that was not loaded from a checkpoint, and on the hub without provenance.
        provenance: the content of its `trl_prune.json`, None without such a file.
    """

    name: str
    folder: Path | None = None
    provenance: Provenance | None = None

    @classmethod
    def of(cls, student: str | PreTrainedModel) -> "StudentOrigin":
        """Return the origin of a model, or of the model in a folder or on the hub."""
        folder = _checkpoint_folder(student)
        name = student if isinstance(student, str) else str(folder or type(student).__name__)
        return cls(name, folder, read_provenance(folder) if folder else None)

    def dense_folder(self, alternative: str) -> Path:
        """Return the checkpoint folder of the student's dense root, at the commit in its provenance.

        Args:
            alternative: what the user can do instead of giving `teacher_model`, for the error.

        Raises:
            InputError: the student has no provenance, or the dense root is not where it says.
        """
        if self.provenance is None:
            raise InputError(
                f"`teacher_model` is not given, and the student {self.name} has no {PROVENANCE} that names its dense "
                f"model; give `teacher_model`, or {alternative}"
            )
        dense = self.provenance.dense
        try:
            return locate(dense["path"], dense["commit"])
        except InputError as error:
            raise InputError(
                f"the {PROVENANCE} of {self.name} names its dense model {dense['path']!r}, which is not found: give "
                f"its present place as `teacher_model` ({error})"
            ) from error

    def provenance_for(self, teacher: PreTrainedConfig) -> Provenance | None:
        """Return the provenance if its indices count in the teacher: the dense root, or one of as many blocks.

        A model of as many blocks is taken for a fine-tuned or corrected dense root, with the same blocks.
        """
        if self.provenance is None:
            return None
        blocks = teacher.get_text_config().num_hidden_layers
        return self.provenance if self.provenance.dense.get("num_hidden_layers", blocks) == blocks else None

    def copy_provenance(self, target: Path) -> None:
        """Copy the student's provenance file, if it has one, into a folder where it is saved."""
        if self.folder is not None and (self.folder / PROVENANCE).is_file() and not target.samefile(self.folder):
            shutil.copyfile(self.folder / PROVENANCE, target / PROVENANCE)


def _checkpoint_folder(student: str | PreTrainedModel) -> Path | None:
    name = student if isinstance(student, str) else config_model_id(student.config)
    if not name or Path(name).is_dir():
        return Path(name) if name else None
    commit = None if isinstance(student, str) else getattr(student.config, "_commit_hash", None)
    try:
        path = cached_file(name, PROVENANCE, revision=commit, **OPTIONAL_FILE)
    except OSError:
        return None
    return Path(path).parent if path else None
