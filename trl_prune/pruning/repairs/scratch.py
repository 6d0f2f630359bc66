"""Fitted tensors on disk, one file each, so that a broken fit goes on and a large model's repairs need no memory."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trl_prune.checkpoints import atomic_file


class Scratch:
    """The fitted tensors of one repair of one cut.

    Args:
        folder: where the files lie; several repairs and cuts share it.
        settings: what decides the fit, JSON-like; fits of other settings have other names.
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
        with safe_open(self.path(name), "pt") as stored:
            return stored.get_tensor(key)
