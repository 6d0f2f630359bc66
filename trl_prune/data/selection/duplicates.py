"""Rows that say the same as an earlier one: equal texts by hash, near-equal texts by the cosine of their embeddings.

Near duplicates are found greedily, in the order of the dataset: a row is dropped if its cosine similarity to an
earlier row that is kept reaches the threshold. So every dropped row is similar to the row that stands for it; a chain
of rows, each similar to the next only, is not merged into one.

Of many rows, not all pairs are compared, only rows that share one of their nearest landmarks. Across such cells a row
may be dropped for a row that is dropped later itself; the row that stands for that one then stands for it too, if they
are similar enough, and else it is kept.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from trl_prune.data.selection.neighbours import NeighbourSearch, blocks, landmark_rows


# Cosine similarity of sentence embeddings from which two texts count as one.
SIMILARITY = 0.95


# Up to this many rows all pairs are compared.
ALL_PAIRS_ROWS = 20_000


# Landmarks per square root of the rows, and cells that each row is in, see benchmarks/README.md for what they find.
LANDMARKS_PER_ROOT, CELLS_PER_ROW = 2, 4


BLOCK_ROWS = 1024


# Vectors stored as float16 have a length of 1, and so cosines, only to within this.
ROUNDING = 5e-4


def equal_texts(texts: Sequence[str]) -> np.ndarray:
    """Return for each row the first row with the same text, but for case and white space, `(rows,)`."""
    rows: dict[bytes, int] = {}
    first = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        normalised = " ".join(text.casefold().split())
        digest = hashlib.blake2b(normalised.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first[row] = rows.setdefault(digest, row)
    return first


def near_duplicates(
    embeddings: np.ndarray, similarity: float = SIMILARITY, seed: int = 0, rows: np.ndarray | None = None
) -> np.ndarray:
    """Return for each of some rows the position among them of the row that stands for it, `(len(rows),)`.

    Args:
        embeddings: normalised, `(all rows, width)`; may be mapped from disk, and is read in parts.
        similarity: the least cosine similarity of near duplicates.
        seed: of the landmarks.
        rows: the rows to compare, ascending; all if None.
    """
    rows = np.arange(len(embeddings)) if rows is None else rows
    least = similarity - ROUNDING
    stands_for = np.arange(len(rows))
    for cell in _cells(embeddings, rows, seed):
        alive = cell[stands_for[cell] == cell]
        if len(alive) > 1:
            stands_for[alive] = alive[greedy_duplicates(_read(embeddings, rows[alive]), least)]
    while (stands_for[stands_for] != stands_for).any():
        stands_for = stands_for[stands_for]
    return _without_drift(embeddings, rows, stands_for, least - ROUNDING)


def _cells(embeddings: np.ndarray, rows: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Yield ascending positions in `rows` that are compared with each other."""
    if len(rows) <= ALL_PAIRS_ROWS:
        yield np.arange(len(rows))
        return
    num_landmarks = int(LANDMARKS_PER_ROOT * len(rows) ** 0.5)
    landmarks = NeighbourSearch(_read(embeddings, rows[landmark_rows(len(rows), num_landmarks, seed)]))
    cells = np.empty((len(rows), CELLS_PER_ROW), dtype=np.int32)
    for block in blocks(len(rows)):
        cells[block] = landmarks.nearest(_read(embeddings, rows[block]), CELLS_PER_ROW).rows
    members = np.argsort(cells, axis=None, kind="stable")
    starts = np.searchsorted(cells.ravel()[members], np.arange(1, num_landmarks))
    yield from np.split(members // CELLS_PER_ROW, starts)


def _read(embeddings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.asarray(embeddings[rows], dtype=np.float32)


def greedy_duplicates(vectors: np.ndarray, similarity: float) -> np.ndarray:
    """Return for each row the first earlier kept row that is similar enough, or itself if it is kept, `(rows,)`.

    Rows are compared with those kept so far, a block with a block at a time, and then with each other.
    """
    stands_for = np.arange(len(vectors))
    kept = np.empty(0, dtype=np.int64)
    for block in blocks(len(vectors), BLOCK_ROWS):
        positions = np.arange(block.start, block.stop)
        for part in blocks(len(kept), BLOCK_ROWS):
            free = positions[stands_for[positions] == positions]
            similar = vectors[free] @ vectors[kept[part]].T >= similarity
            found = similar.any(axis=1)
            stands_for[free[found]] = kept[part][similar[found].argmax(axis=1)]
        free = positions[stands_for[positions] == positions]
        stands_for[free] = free[_greedy_in_block(vectors[free], similarity)]
        kept = np.append(kept, free[stands_for[free] == free])
    return stands_for


def _greedy_in_block(vectors: np.ndarray, similarity: float) -> np.ndarray:
    stands_for = np.arange(len(vectors))
    similar = np.triu(vectors @ vectors.T >= similarity, k=1)
    for row in np.flatnonzero(similar.any(axis=1)):
        if stands_for[row] == row:
            dropped = similar[row] & (stands_for == np.arange(len(vectors)))
            stands_for[dropped] = row
    return stands_for


def _without_drift(embeddings: np.ndarray, rows: np.ndarray, stands_for: np.ndarray, least: float) -> np.ndarray:
    """Keep each row whose similarity to the row that stands for it is too small."""
    dropped = np.flatnonzero(stands_for != np.arange(len(rows)))
    for block in blocks(len(dropped)):
        part = dropped[block]
        pairs = (_read(embeddings, rows[part]), _read(embeddings, rows[stands_for[part]]))
        drifted = part[np.einsum("rw,rw->r", *pairs) < least]
        stands_for[drifted] = drifted
    return stands_for
