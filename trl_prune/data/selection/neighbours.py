"""Exact nearest neighbours by brute force, block by block: rows among themselves, or rows to landmarks.

Approximate indexes are not needed: with landmarks the work is linear in the rows, and one matrix product is fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors


BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each row, nearest first.

    Attributes:
        rows: their indices, `(rows, count)`.
        distances: Euclidean, `(rows, count)`, float64.
    """

    rows: np.ndarray
    distances: np.ndarray


class NeighbourSearch:
    """Rows that are searched for the nearest neighbours of others.

    Attributes:
        vectors: the rows that are searched, `(searched, width)`, float32.
    """

    def __init__(self, vectors: np.ndarray):
        self.vectors = np.asarray(vectors, dtype=np.float32)
        self._index = NearestNeighbors(algorithm="brute").fit(self.vectors)

    def among_themselves(self, count: int) -> Neighbours:
        """Return the nearest other rows of each searched row, at most `count`; a row is never its own neighbour."""
        count = min(count, len(self.vectors) - 1)
        distances, rows = self._index.kneighbors(n_neighbors=count)
        return Neighbours(rows, distances)

    def nearest(self, vectors: np.ndarray, count: int) -> Neighbours:
        """Return the nearest searched rows of each given row, at most `count`.

        Args:
            vectors: `(rows, width)`.
            count: neighbours per row.
        """
        count = min(count, len(self.vectors))
        distances, rows = self._index.kneighbors(np.asarray(vectors, dtype=np.float32), n_neighbors=count)
        return Neighbours(rows, distances)


def blocks(num_rows: int, block_rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices that cover the rows, so that a memory-mapped array is read one block at a time."""
    for start in range(0, num_rows, block_rows):
        yield slice(start, min(start + block_rows, num_rows))


def landmark_rows(num_rows: int, count: int, seed: int) -> np.ndarray:
    """Return `count` distinct rows drawn at random, or all of them if there are no more, in ascending order."""
    if num_rows <= count:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(seed).choice(num_rows, size=count, replace=False))
