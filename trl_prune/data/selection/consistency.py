"""The Concept Consistency Graph, which keeps contradicting rows out of a selection (2502.12594, section 3.4)."""

import heapq
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from trl_prune.data.selection.concepts import Concepts


Pair = tuple[int, int]


class ConceptGraph:
    """Concepts that accepted rows have, and which of them occurred together.

    Two known concepts that no accepted row has together are a conflict. Concepts are ids; those of a row come in
    ascending order.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._edges: set[int] = set()

    def conflicts(self, ids: list[int]) -> list[Pair]:
        """Return the pairs of a row's concepts that conflict, in order; at most C (C - 1) / 2 of C concepts."""
        return list(self._conflicting(ids))

    def first_conflict(self, ids: list[int]) -> Pair | None:
        """Return the first pair of a row's concepts that conflicts, or None."""
        return next(self._conflicting(ids), None)

    def conflict_share(self, ids: list[int]) -> float:
        """Return the share of the pairs of a row's concepts that conflict, from 0 (also without pairs) to 1."""
        pairs = len(ids) * (len(ids) - 1) // 2
        return len(self.conflicts(ids)) / pairs if pairs else 0.0

    def add(self, ids: list[int]) -> None:
        """Add an accepted row's concepts, also a single one, and their pairs."""
        self._known.update(ids)
        self._edges.update(_edge(pair) for pair in combinations(ids, 2))

    def _conflicting(self, ids: list[int]) -> Iterator[Pair]:
        known = [concept for concept in ids if concept in self._known]
        return (pair for pair in combinations(known, 2) if _edge(pair) not in self._edges)


def _edge(pair: Pair) -> int:
    """Return a pair as one number, which takes less memory in a set than a tuple."""
    return pair[0] << 32 | pair[1]


@dataclass(frozen=True)
class Candidates:
    """The rows of a cluster that may be chosen, by falling score.

    Attributes:
        cluster: its label.
        positions: where the rows are in the pool, `(candidates,)`.
        scores: theirs, `(candidates,)`.
    """

    cluster: int
    positions: np.ndarray
    scores: np.ndarray


@dataclass
class ConsistencyFilter:
    """What the rows accepted so far, of all clusters, say about the next one.

    Attributes:
        concepts: of every row of the pool; None where consistency is off.
        graph: of the accepted rows.
        rejected: positions of the rejected rows, in order.
        conflicts: the first conflicting pair of each, two numbers after each other.
        clusters: the cluster of each.
    """

    concepts: Concepts | None
    graph: ConceptGraph = field(default_factory=ConceptGraph)
    rejected: array = field(default_factory=lambda: array("q"))
    conflicts: array = field(default_factory=lambda: array("q"))
    clusters: array = field(default_factory=lambda: array("q"))

    def reject(self, position: int, conflict: Pair, cluster: int) -> None:
        """Record a rejected row."""
        self.rejected.append(position)
        self.conflicts.extend(conflict)
        self.clusters.append(cluster)

    def num_rejected(self, num_clusters: int) -> np.ndarray:
        """Return how many rows of each cluster were rejected, `(clusters,)`."""
        return np.bincount(np.array(self.clusters, dtype=np.int64), minlength=num_clusters)


@dataclass(frozen=True)
class Rejections:
    """The rows that the filter rejected, in order.

    Attributes:
        rows: their indices in the dataset, `(rejected,)`.
        clusters: their clusters, `(rejected,)`.
        conflicts: the first pair of concepts in conflict, `(rejected, 2)`.
        names: each concept's phrase, by id.
    """

    rows: np.ndarray
    clusters: np.ndarray
    conflicts: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def examples(self, count: int) -> list[dict[str, int | list[str]]]:
        """Return the first rejected rows: `row`, `cluster` and `conflict`, the names of two concepts."""
        first = zip(self.rows[:count].tolist(), self.clusters.tolist(), self.conflicts.tolist(), strict=False)
        return [
            {"row": row, "cluster": cluster, "conflict": [self.names[concept] for concept in pair]}
            for row, cluster, pair in first
        ]


def recorded_rejections(record: ConsistencyFilter, rows: np.ndarray) -> Rejections:
    """Return the rejections of a filter.

    Args:
        record: the filter.
        rows: the pool's rows, as indices in the dataset.
    """
    return Rejections(
        rows=rows[np.array(record.rejected, dtype=np.int64)],
        clusters=np.array(record.clusters, dtype=np.int64),
        conflicts=np.array(record.conflicts, dtype=np.int64).reshape(-1, 2),
        names=[] if record.concepts is None else record.concepts.names,
    )


def all_rows(candidates: Candidates, _record: ConsistencyFilter) -> Iterator[int]:
    """Yield the positions of all rows: no filter."""
    yield from candidates.positions.tolist()


def rows_without_conflict(candidates: Candidates, record: ConsistencyFilter) -> Iterator[int]:
    """Yield the positions of rows without any conflict, and record the others (the paper's rule).

    A rejected row stays one: only a row with the same two concepts could join them, and it is rejected too.
    """
    for position in candidates.positions.tolist():
        ids = record.concepts.of(position)
        conflict = record.graph.first_conflict(ids)
        if conflict is None:
            record.graph.add(ids)
            yield position
        else:
            record.reject(position, conflict, candidates.cluster)


def rows_by_conflict(candidates: Candidates, record: ConsistencyFilter) -> Iterator[int]:
    """Yield the positions of all rows by falling score x (1 - share of their pairs that conflict): our own rule.

    The product is computed anew when a row comes to the top; it is taken if it is still not below the next row's last
    known product. A pair changes at most twice (into a conflict, then into an edge), which bounds the work.
    """
    heap = [
        (-score, rank) for rank, score in enumerate(candidates.scores.tolist())
    ]  # by falling score: a heap already
    positions = candidates.positions
    while heap:
        _, rank = heapq.heappop(heap)
        position = int(positions[rank])
        ids = record.concepts.of(position)
        entry = (-float(candidates.scores[rank]) * (1 - record.graph.conflict_share(ids)), rank)
        if heap and entry > heap[0]:
            heapq.heappush(heap, entry)
            continue
        record.graph.add(ids)
        yield position


# Yields the positions of a cluster's rows that are accepted, one after the other, and adds them to the graph.
CONSISTENCY: dict[str, Callable[[Candidates, ConsistencyFilter], Iterator[int]]] = {
    "hard": rows_without_conflict,
    "soft": rows_by_conflict,
    "off": all_rows,
}
