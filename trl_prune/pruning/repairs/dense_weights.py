"""The dense checkpoint's tensors, read on demand."""

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from trl_prune.checkpoints import tensor_files


class DenseWeights:
    """A checkpoint's tensors, read one at a time."""

    def __init__(self, source: Path):
        self.files = tensor_files(source)

    def get(self, name: str) -> Tensor | None:
        """Return a tensor, or None if the checkpoint has none of that name."""
        if name not in self.files:
            return None
        with safe_open(self.files[name], "pt") as file:
            return file.get_tensor(name)

    def shape(self, name: str) -> list[int]:
        """Return a tensor's shape without reading the tensor."""
        with safe_open(self.files[name], "pt") as file:
            return file.get_slice(name).get_shape()
