"""Numbers of each row of a dataset in a file that several processes fill chunk by chunk, and that outlives them.

Beside the array, `NAME.npy`, lie `NAME.json`, what it holds, and `NAME.done`, one byte per chunk that is written. A
process that is killed loses the chunk in hand.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from trl_prune.checkpoints import atomic_file, write_json
from trl_prune.data.sharing import ProcessShare
from trl_prune.errors import InputError


@dataclass(frozen=True)
class RowArray:
    """A 2-D array on disk with one line per row.

    Attributes:
        path: the `.npy` file.
        shape: rows and columns.
        key: changes with everything that determines the values (rows, models, settings); an array with another key is
            redone.
        dtype: of the values, as numpy names it.
        chunk_rows: rows per chunk, the unit that is written.
    """

    path: Path
    shape: tuple[int, int]
    key: str
    dtype: str = "float32"
    chunk_rows: int = 512

    def create(self) -> None:
        """Create the files, if they are absent or hold another array; several processes may call it at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            if not self._exists:
                self._metadata_path.unlink(missing_ok=True)
                with atomic_file(self.path) as part:
                    # Not truncated in place, because a process may still read the old array.
                    np.lib.format.open_memmap(part, mode="w+", dtype=self.dtype, shape=self.shape)
                with atomic_file(self._done_path) as part:
                    part.write_bytes(bytes(self.num_chunks))
                write_json(self._metadata_path, self._metadata)

    @property
    def num_chunks(self) -> int:
        """The number of chunks; the last may have fewer rows."""
        return -(-self.shape[0] // self.chunk_rows)

    def missing(self) -> list[int]:
        """Return the chunks that are not written.

        Raises:
            InputError: the file is absent or holds another array.
        """
        self._check()
        return np.flatnonzero(np.frombuffer(self._done_path.read_bytes(), np.uint8) == 0).tolist()

    def rows_of(self, chunk: int) -> slice:
        """Return a chunk's rows."""
        start = chunk * self.chunk_rows
        return slice(start, min(start + self.chunk_rows, self.shape[0]))

    def write(self, chunk: int, values: np.ndarray) -> None:
        """Write a chunk; it counts as written only once its values are on the disk.

        Args:
            chunk: its index.
            values: `(rows of the chunk, columns)`.
        """
        rows = self.rows_of(chunk)
        if values.shape != (rows.stop - rows.start, self.shape[1]):
            raise ValueError(f"chunk {chunk} has shape {values.shape}, and its rows are {rows.start}..{rows.stop - 1}")
        array = self._open("r+")
        start = array.offset + rows.start * array.strides[0]
        # Written as a file: where the disk is full, a write to mapped memory kills the process.
        _write_at(self.path, start, np.ascontiguousarray(values, dtype=self.dtype).tobytes())
        _write_at(self._done_path, chunk, b"\1")

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is written."""
        return self._exists and not self.missing()

    def read(self) -> np.ndarray:
        """Return the array, mapped read-only.

        Raises:
            InputError: the file is absent, holds another array, or lacks chunks.
        """
        missing = self.missing()
        if missing:
            raise InputError(
                f"{self.path} is incomplete: {len(missing)} of {self.num_chunks} chunks are missing; write it again "
                "with the same arguments, which resumes where it stopped"
            )
        return self._open("r")

    @property
    def _metadata_path(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def _done_path(self) -> Path:
        return self.path.with_suffix(".done")

    @property
    def _metadata(self) -> dict:
        dtype = np.dtype(self.dtype).str
        return {"key": self.key, "shape": list(self.shape), "dtype": dtype, "chunk_rows": self.chunk_rows}

    @property
    def _exists(self) -> bool:
        if not all(path.is_file() for path in (self.path, self._done_path, self._metadata_path)):
            return False
        return json.loads(self._metadata_path.read_text()) == self._metadata

    def _check(self) -> None:
        if not self._exists:
            raise InputError(f"{self.path} is absent or holds the numbers of other rows or models; create it first")

    def _open(self, mode: str) -> np.memmap:
        return np.lib.format.open_memmap(self.path, mode=mode)


def _write_at(path: Path, offset: int, content: bytes) -> None:
    """Overwrite a part of a file, down to the disk."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def share_of_chunks(array: RowArray, share: ProcessShare) -> list[int]:
    """Return the chunks that one process is to write, whether written or not."""
    return list(range(array.num_chunks))[share.process_index :: share.num_processes]


def missing_of_share(array: RowArray, share: ProcessShare) -> list[int]:
    """Return the chunks of a process's share that are not written.

    The share is of all chunks: what is missing changes while other processes work.
    """
    missing = set(array.missing())
    return [chunk for chunk in share_of_chunks(array, share) if chunk in missing]
