"""One shard of a teacher cache: the encoded arrays of consecutive sequences in a safetensors file."""

import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from trl_prune.checkpoints import read_header
from trl_prune.data.teacher_cache.codecs import Arrays, Codec
from trl_prune.errors import InputError


# The tensors of a shard beside its codec's arrays, with one entry per sequence; the starts have one more.
KEYS, POSITION_STARTS, ENTRY_STARTS, CHECKSUMS = "keys", "position_starts", "entry_starts", "checksums"


def shard_path(folder: Path, index: int) -> Path:
    """Return the path of a cache's shard."""
    return folder / f"shard-{index:06d}.safetensors"


def missing_shards(folder: Path, count: int) -> list[int]:
    """Return the indices, out of `count`, of the shards whose file does not exist."""
    return [index for index in range(count) if not shard_path(folder, index).is_file()]


def checksum(arrays: Arrays) -> int:
    """Return the CRC-32 of a sequence's arrays, concatenated in the order of their names."""
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(arrays[name].contiguous().view(torch.uint8).numpy(), value)
    return value


class Shard:
    """A shard opened for reading; slices are read from the memory-mapped file.

    Attributes:
        path: the file.
        codec: the codec that its arrays were encoded with.
        names: the arrays' names; known once `open` was called.
    """

    def __init__(self, path: Path, codec: Codec):
        self.path, self.codec = path, codec

    def open(self, plan: str) -> Tensor:
        """Open the file and return the keys of its sequences, `(sequences, 2)`.

        Args:
            plan: the cache's plan hash.

        Raises:
            InputError: the file is truncated or belongs to another cache.
        """
        read_header(self.path)
        self._file = safe_open(self.path, framework="pt")
        if (self._file.metadata() or {}).get("plan") != plan:
            raise InputError(f"the shard {self.path} belongs to another cache; write the cache again")
        self.names = sorted(set(self._file.keys()) - {KEYS, POSITION_STARTS, ENTRY_STARTS, CHECKSUMS})
        self._starts = {
            name: self._file.get_tensor(ENTRY_STARTS if name in self.codec.ragged else POSITION_STARTS)
            for name in self.names
        }
        self._checksums = self._file.get_tensor(CHECKSUMS)
        return self._file.get_tensor(KEYS)

    def read(self, row: int) -> Arrays:
        """Return the arrays of the shard's sequence `row`.

        Raises:
            InputError: they do not match their checksum.
        """
        arrays = {}
        for name in self.names:
            start, end = self._starts[name][row : row + 2].tolist()
            arrays[name] = self._file.get_slice(name)[start:end]
        if checksum(arrays) != int(self._checksums[row]):
            raise InputError(f"the shard {self.path} is corrupt: sequence {row} does not match its checksum")
        return arrays
