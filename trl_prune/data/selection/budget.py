"""How many rows each cluster contributes to a budget (PASER, 2502.12594, equation 6)."""

import math
from collections.abc import Callable
from numbers import Integral

import numpy as np

from trl_prune.errors import InputError


# Remainders are equal to this many digits, so that the last bit of a mean does not decide who gets a row.
REMAINDER_DIGITS = 9


def resolve_budget(budget: int | float, rows: int) -> int:
    """Return a budget as a number of rows, at least 1.

    Args:
        budget: a number of rows (an integer), or a share of them above 0 and up to 1 (a float).
        rows: how many there are to choose from.

    Raises:
        InputError: the budget is neither, or there are fewer rows.
    """
    if isinstance(budget, bool) or not isinstance(budget, Integral | float):
        raise InputError(f"budget is {budget!r}, and must be a number of rows or a share of them")
    if isinstance(budget, Integral):
        return check_budget(int(budget), rows)
    if math.isnan(budget) or not 0 < budget <= 1:
        raise InputError(
            f"budget is {budget!r}, and as a share of the rows must be above 0 and at most 1 "
            "(a number of rows is an integer, without a decimal point)"
        )
    return check_budget(max(round(budget * rows), 1), rows)


def check_budget(budget: int, rows: int) -> int:
    """Return the budget; raise InputError unless it is at least 1 and there are as many rows."""
    if budget < 1:
        raise InputError(f"budget is {budget:,}, and at least 1 row must be chosen")
    if budget > rows:
        raise InputError(f"budget is {budget:,} rows, and there are {rows:,} to choose from")
    return budget


def cluster_weights(
    degradation: np.ndarray, sizes: np.ndarray, allocation: str = "degradation", temperature: float = 1.0
) -> np.ndarray:
    """Return each cluster's share of the budget, `(clusters,)`, summing to 1.

    A cluster without a score (NaN) counts as undamaged. Where every weight is 0, as with a model that has not changed,
    the shares are those of the clusters' sizes.

    Args:
        degradation: each cluster's capability degradation score, the mean divergence of its rows, `(clusters,)`.
        sizes: each cluster's number of rows, `(clusters,)`.
        allocation: a name in `ALLOCATIONS`.
        temperature: of `softmax`: the higher, the more equal.
    """
    weights = ALLOCATIONS[allocation](np.nan_to_num(degradation), np.asarray(sizes, dtype=float), temperature)
    weights = weights if weights.sum() > 0 else np.asarray(sizes, dtype=float)
    return weights / weights.sum()


def allocate(budget: int, weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return each cluster's number of rows, `(clusters,)`, summing to the budget.

    A cluster gets its share, rounded by largest remainder, and never more than its size. What a full cluster cannot
    take goes to the others by their weights; once only clusters of weight 0 have room, by their sizes.

    Args:
        budget: number of rows, at least 1 and at most the sum of the sizes.
        weights: each cluster's weight, not negative, `(clusters,)`.
        sizes: each cluster's number of rows, `(clusters,)`.

    Raises:
        InputError: the budget is 0 or exceeds the sum of the sizes.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    check_budget(budget, int(sizes.sum()))
    counts = np.zeros_like(sizes)
    room = sizes > 0
    while True:
        rest = budget - int(counts.sum())
        shares = rest * _normalised(np.where(room, weights, 0.0), np.where(room, sizes, 0))
        full = room & (shares >= sizes)
        if not full.any():
            return counts + _round_to(shares, rest)
        counts[full] = sizes[full]
        room &= ~full


def _normalised(weights: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the weights, or the sizes where all weights are 0, divided by their sum."""
    chosen = weights if weights.sum() > 0 else sizes
    return chosen / max(chosen.sum(), np.finfo(float).tiny)


def _round_to(shares: np.ndarray, total: int) -> np.ndarray:
    """Round shares that sum to `total` by largest remainder; of equal remainders the first is rounded up."""
    counts = np.floor(shares).astype(np.int64)
    by_remainder = np.argsort(np.round(counts - shares, REMAINDER_DIGITS), kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return counts


def _by_softmax(degradation: np.ndarray, _sizes: np.ndarray, temperature: float) -> np.ndarray:
    return np.exp((degradation - degradation.max()) / temperature)


# (degradation, sizes, temperature) -> weights, `(clusters,)`. The paper's is `degradation`, a linear normalisation.
ALLOCATIONS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "degradation": lambda degradation, _sizes, _temperature: degradation,
    "equal": lambda _degradation, sizes, _temperature: np.ones(len(sizes)),
    "softmax": _by_softmax,
    "size": lambda _degradation, sizes, _temperature: sizes,
}
