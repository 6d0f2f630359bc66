"""Fitted tensors on disk, one file per fit: an interrupted fit resumes, and large models' repairs need no memory."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trl_prune.checkpoints import atomic_file


class FitCache:
    """The fitted tensors of one repair of one cut.

    Args:
        folder: where the files are; several repairs and cuts may share it.
        settings: what determines the fit, JSON-serialisable; fits with other settings have other file names.
    """

    def __init__(self, folder: Path, settings: object):
        self.folder = folder
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def path(self, name: str) -> Path:
        """Return the file of one fit."""
        return self.folder / f"{name}.{self.digest}.safetensors"

    def __contains__(self, name: str) -> bool:
        return self.path(name).is_file()

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write one fit, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path(name)) as part:
            save_file({key: tensor.contiguous().cpu() for key, tensor in tensors.items()}, part)

    def load(self, name: str, key: str) -> Tensor:
        """Return one tensor of a fit."""
        with safe_open(self.path(name), "pt") as file:
            return file.get_tensor(key)
