"""PASER's choice of rows: budgets by degradation, efficient rows first, no contradictions (2502.12594, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from trl_prune.data.selection.budget import allocate, check_budget, cluster_weights
from trl_prune.data.selection.consistency import (
    CONSISTENCY,
    Candidates,
    ConsistencyFilter,
    Rejections,
    recorded_rejections,
)
from trl_prune.data.selection.pool import Pool, degradation
from trl_prune.errors import InputError


@dataclass(frozen=True)
class PaserSettings:
    """How PASER chooses; the defaults are the paper's, but for `consistency`: its rule, `hard`, rejects most rows.

    The allocation `softmax` has a temperature of 0.1, at which 0.1 nats more of degradation give e times the weight:
    degradations are at most log 2, so at 1 no cluster would get more than twice another's weight.

    Attributes:
        allocation: what a cluster's budget is proportional to, a name in `ALLOCATIONS`.
        temperature: of the allocation `softmax`.
        ranking: order inside a cluster, a name in `RANKINGS`.
        cost: a row's cost of training, a name in `COSTS`.
        consistency: what happens to rows in conflict with those accepted, a name in `CONSISTENCY`.
        order: of the clusters, a name in `ORDERS`.
    """

    allocation: str = "degradation"
    temperature: float = 0.1
    ranking: str = "efficiency"
    cost: str = "squared_tokens"
    consistency: str = "soft"
    order: str = "degradation"


@dataclass(frozen=True)
class ClusterShare:
    """What a selection took from a cluster.

    Attributes:
        cluster: its label.
        rows: its rows in the pool.
        candidates: those of them with an answer, which can be chosen.
        degradation: its capability degradation score; NaN without candidates.
        budget: rows it was to contribute at first.
        chosen: rows it contributed.
        rejected: rows in conflict with those accepted.
    """

    cluster: int
    rows: int
    candidates: int
    degradation: float
    budget: int
    chosen: int
    rejected: int


@dataclass(frozen=True)
class Selection:
    """Chosen rows.

    Attributes:
        rows: their indices in the dataset, ascending, `(chosen,)`.
        per_cluster: what each cluster contributed; empty for methods without clusters.
        rejections: the rows that the consistency filter rejected; None for methods without it.
    """

    rows: np.ndarray
    per_cluster: tuple[ClusterShare, ...] = ()
    rejections: Rejections | None = None


def select_by_paser(pool: Pool, budget: int, paser: PaserSettings, seed: int = 0) -> Selection:
    """Return PASER's selection of exactly `budget` rows.

    Each cluster contributes its budget in the order of its rows' scores; what it cannot contribute, because rows were
    rejected, is shared among the others by the same weights. Of equal scores the row that comes first in the pool is
    taken. Rows without an answer are never chosen.

    Args:
        pool: with `divergence` and `clusters`, and `concepts` unless consistency is off.
        budget: number of rows.
        paser: how.
        seed: of random orders.

    Raises:
        InputError: fewer rows can be chosen than the budget asks for.
    """
    candidates = _candidates(pool, row_scores(pool, paser, seed))
    sizes = np.array([len(part.positions) for part in candidates])
    _check_candidates(pool, budget, int(sizes.sum()))
    damage = degradation(pool)
    weights = cluster_weights(damage, sizes, paser.allocation, paser.temperature)
    record = ConsistencyFilter(None if paser.consistency == "off" else pool.concepts)
    streams = [CONSISTENCY[paser.consistency](part, record) for part in candidates]
    taken: list[list[int]] = [[] for _ in candidates]
    room = sizes
    while (rest := budget - sum(map(len, taken))) and room.any():
        counts = allocate(min(rest, int(room.sum())), weights, room)
        for cluster in ORDERS[paser.order](damage, seed):
            taken[cluster].extend(islice(streams[cluster], int(counts[cluster])))
        room = sizes - [len(part) for part in taken] - record.num_rejected(len(sizes))
    _check_survivors(budget, int(sizes.sum()), len(record.rejected))
    chosen = np.array([len(part) for part in taken])
    return Selection(
        rows=np.sort(pool.rows[[position for part in taken for position in part]]),
        per_cluster=_cluster_shares(pool, allocate(budget, weights, sizes), chosen, record),
        rejections=recorded_rejections(record, pool.rows),
    )


def row_scores(pool: Pool, paser: PaserSettings, seed: int = 0) -> np.ndarray:
    """Return what rows of a cluster are ordered by, `(rows,)`; NaN for rows without an answer."""
    scores = RANKINGS[paser.ranking](pool, COSTS[paser.cost], seed)
    return np.where(np.isnan(pool.divergence), np.nan, scores)


def efficiency(pool: Pool, log_cost: Callable[[np.ndarray], np.ndarray], _seed: int = 0) -> np.ndarray:
    """Return the efficiency scores, divergence / log(cost), `(rows,)` (equation 7).

    A row of fewer than two tokens, whose logarithm would be 0, counts as two.
    """
    return pool.divergence / log_cost(np.maximum(pool.tokens, 2))


def _divergence(pool: Pool, _log_cost: object, _seed: int) -> np.ndarray:
    return pool.divergence


def _at_random(pool: Pool, _log_cost: object, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(len(pool))


# The logarithm of a row's cost, from its tokens. The paper's cost is their square; any power orders rows alike.
COSTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "squared_tokens": lambda tokens: 2 * np.log(tokens),
    "none": lambda tokens: np.ones(len(tokens)),
}

# (pool, logarithm of the cost, seed) -> what a cluster's rows are ordered by, falling, `(rows,)`.
RANKINGS: dict[str, Callable[[Pool, Callable[[np.ndarray], np.ndarray], int], np.ndarray]] = {
    "efficiency": efficiency,
    "divergence": _divergence,
    "random": _at_random,
}

# (degradation, seed) -> the clusters in the order in which they contribute.
ORDERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "degradation": lambda damage, _seed: np.argsort(-np.nan_to_num(damage), kind="stable"),
    "random": lambda damage, seed: np.random.default_rng(seed).permutation(len(damage)),
}


def _candidates(pool: Pool, scores: np.ndarray) -> list[Candidates]:
    """Return each cluster's rows with a score, by falling score."""
    scored = np.flatnonzero(~np.isnan(scores))
    labels = pool.clusters[scored]
    ordered = scored[np.lexsort((-scores[scored], labels))]
    ends = np.cumsum(np.bincount(labels, minlength=pool.num_clusters))
    return [
        Candidates(cluster, positions, scores[positions])
        for cluster, positions in enumerate(np.split(ordered, ends[:-1]))
    ]


def _check_candidates(pool: Pool, budget: int, candidates: int) -> None:
    check_budget(budget, len(pool))
    if budget > candidates:
        raise InputError(
            f"budget is {budget:,} rows, and {candidates:,} of the {len(pool):,} rows have an answer to be scored by"
        )


def _check_survivors(budget: int, candidates: int, rejected: int) -> None:
    survivors = candidates - rejected
    if survivors < budget:
        raise InputError(
            f"select.budget is {budget:,} rows, and {survivors:,} are left: the consistency filter rejected "
            f"{rejected:,} of {candidates:,}; lower `select.budget`, or set `select.consistency` to `soft` or `off`"
        )


def _cluster_shares(
    pool: Pool, budgets: np.ndarray, chosen: np.ndarray, record: ConsistencyFilter
) -> tuple[ClusterShare, ...]:
    count = pool.num_clusters
    candidates = np.bincount(pool.clusters[~np.isnan(pool.divergence)], minlength=count)
    columns = (pool.cluster_sizes, candidates, degradation(pool), budgets, chosen, record.num_rejected(count))
    rows = zip(range(count), *(column.tolist() for column in columns), strict=True)
    return tuple(ClusterShare(*row) for row in rows)
