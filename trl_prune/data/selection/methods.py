"""The ways to select rows: PASER, and the baselines that it has to beat."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from trl_prune.data.selection.budget import check_budget
from trl_prune.data.selection.paser import PaserSettings, Selection, select_by_paser
from trl_prune.data.selection.pool import Pool
from trl_prune.errors import InputError


# Ranges of length in which `random_matched` draws.
LENGTH_RANGES = 20


@dataclass(frozen=True)
class Request:
    """What is asked of a method.

    Attributes:
        budget: number of rows.
        seed: of random choices.
        paser: how PASER chooses.
        reference: the rows whose lengths `random_matched` matches, as indices in the dataset.
    """

    budget: int
    seed: int = 0
    paser: PaserSettings = field(default_factory=PaserSettings)
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class Method:
    """A way to select rows.

    Attributes:
        choose: returns the selection.
        needs: the fields of a pool that it reads and that may be None.
        summary: one line for a person.
        sets_its_own_count: whether the budget is ignored.
    """

    choose: Callable[[Pool, Request], Selection]
    needs: frozenset[str]
    summary: str
    sets_its_own_count: bool = False


def select(name: str, pool: Pool, request: Request) -> Selection:
    """Return a method's selection.

    Args:
        name: of the method, in `METHODS`.
        pool: the rows to choose from.
        request: what is asked for.

    Raises:
        InputError: fewer rows can be chosen than the budget asks for.
        ValueError: the pool lacks what the method reads.
    """
    missing = sorted(need for need in METHODS[name].needs if getattr(pool, need) is None)
    if "concepts" in missing and request.paser.consistency == "off":
        missing.remove("concepts")
    if missing:
        raise ValueError(f"{name} reads {', '.join(missing)} of the pool")
    return METHODS[name].choose(pool, request)


def selection_figures(selection: Selection, pool: Pool) -> dict[str, object]:
    """Return a selection's figures: `rows`, `tokens`, `mean_tokens`, `mean_divergence`, `rows_per_cluster`.

    The last two are None where the pool has no divergence or clusters; rows without an answer have no divergence.
    """
    chosen = np.isin(pool.rows, selection.rows)
    tokens, divergence, per_cluster = int(pool.tokens[chosen].sum()), None, None
    if pool.divergence is not None:
        scored = pool.divergence[chosen & ~np.isnan(pool.divergence)]
        divergence = float(scored.mean()) if len(scored) else None
    if pool.clusters is not None:
        per_cluster = np.bincount(pool.clusters[chosen], minlength=pool.num_clusters).tolist()
    return {
        "rows": len(selection.rows),
        "tokens": tokens,
        "mean_tokens": tokens / max(len(selection.rows), 1),
        "mean_divergence": divergence,
        "rows_per_cluster": per_cluster,
    }


def by_paser(pool: Pool, request: Request) -> Selection:
    """Return PASER's selection."""
    return select_by_paser(pool, request.budget, request.paser, request.seed)


def by_equal_budgets(pool: Pool, request: Request) -> Selection:
    """Return PASER's selection with one budget for all clusters."""
    return select_by_paser(pool, request.budget, replace(request.paser, allocation="equal"), request.seed)


def at_random(pool: Pool, request: Request) -> Selection:
    """Return random rows; those of a smaller budget are among those of a larger one."""
    order = np.random.default_rng(request.seed).permutation(len(pool))
    return _selection(pool, order[: check_budget(request.budget, len(pool))])


def at_random_matched(pool: Pool, request: Request) -> Selection:
    """Return random rows as long as those of another selection, and as many; the budget is ignored.

    The reference's lengths are cut into up to 20 ranges with equally many rows; from each range as many rows of the
    pool are drawn as the reference has there. The reference's own rows may be drawn, so that every range has enough.
    """
    if request.reference is None:
        raise ValueError("random_matched needs the rows of another selection as `reference`")
    lengths = pool.tokens[np.isin(pool.rows, request.reference)]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_RANGES + 1), method="lower"))
    order = np.random.default_rng(request.seed).permutation(len(pool))
    in_range = np.searchsorted(edges, pool.tokens[order], side="right") - 1
    in_range[pool.tokens[order] > edges[-1]] = -1
    wanted = np.bincount(np.searchsorted(edges, lengths, side="right") - 1, minlength=len(edges))
    drawn = [order[in_range == index][:count] for index, count in enumerate(wanted)]
    return _selection(pool, np.concatenate(drawn))


def everything(pool: Pool, _request: Request) -> Selection:
    """Return all rows; the budget is ignored."""
    return _selection(pool, np.arange(len(pool)))


def longest(pool: Pool, request: Request) -> Selection:
    """Return the rows with the longest answers."""
    return _highest(pool, np.where(pool.answer_tokens > 0, pool.answer_tokens, np.nan), request.budget)


def highest_perplexity(pool: Pool, request: Request) -> Selection:
    """Return the rows whose answers the pruned model finds least likely per token."""
    return _highest(pool, pool.cross_entropy, request.budget)


def highest_difficulty(pool: Pool, request: Request) -> Selection:
    """Return the rows of highest instruction-following difficulty (2308.12032).

    It is the answer's perplexity after the prompt / its perplexity alone. Rows from 1 up, in which the prompt does not
    help, are left out as in the paper.
    """
    difference = pool.cross_entropy - pool.answer_alone_cross_entropy
    return _highest(pool, np.where(difference < 0, difference, np.nan), request.budget)


def nearest_to_targets(pool: Pool, request: Request) -> Selection:
    """Return the rows most similar to target rows, which take turns: each takes its most similar unused row.

    RDS+ (2503.01807). Of equally similar rows the first in the pool is taken.
    """
    check_budget(request.budget, len(pool))
    used = np.zeros(len(pool), dtype=bool)
    depth = 2 * -(-request.budget // pool.target_similarity.shape[1]) + 16
    streams = [_by_similarity(column, depth) for column in pool.target_similarity.T]
    chosen: list[int] = []
    while streams and len(chosen) < request.budget:
        row = next((row for row in streams[0] if not used[row]), None)
        streams = streams[1:] + streams[:1] * (row is not None)
        if row is not None:
            used[row] = True
            chosen.append(row)
    return _selection(pool, np.array(_enough(chosen, request.budget, len(pool))))


METHODS: dict[str, Method] = {
    "paser": Method(
        by_paser,
        frozenset({"divergence", "clusters", "concepts"}),
        "PASER: budgets by how much a cluster degraded, then divergence by cost, without contradictions",
    ),
    "equal": Method(
        by_equal_budgets,
        frozenset({"divergence", "clusters", "concepts"}),
        "PASER with one budget for all clusters",
    ),
    "random": Method(at_random, frozenset(), "random rows"),
    "random_matched": Method(
        at_random_matched, frozenset(), "random rows as long as those of another selection", True
    ),
    "full": Method(everything, frozenset(), "all candidates", sets_its_own_count=True),
    "longest": Method(longest, frozenset(), "the longest answers"),
    "perplexity": Method(
        highest_perplexity, frozenset({"cross_entropy"}), "the answers that the pruned model finds least likely"
    ),
    "ifd": Method(
        highest_difficulty,
        frozenset({"cross_entropy", "answer_alone_cross_entropy"}),
        "the rows whose prompts help the pruned model least to answer (2308.12032)",
    ),
    "rds": Method(
        nearest_to_targets, frozenset({"target_similarity"}), "the rows most similar to target rows (2503.01807)"
    ),
}


def _selection(pool: Pool, positions: np.ndarray) -> Selection:
    return Selection(np.sort(pool.rows[positions]))


def _highest(pool: Pool, scores: np.ndarray, budget: int) -> Selection:
    """Return the rows of the highest scores, never those of NaN; of equal scores the first in the pool."""
    check_budget(budget, len(pool))
    scored = np.flatnonzero(~np.isnan(scores))
    _enough(scored, budget, len(pool))
    return _selection(pool, scored[np.argsort(-scores[scored], kind="stable")[:budget]])


def _enough(rows: list[int] | np.ndarray, budget: int, pool_rows: int) -> list[int] | np.ndarray:
    if len(rows) < budget:
        raise InputError(
            f"budget is {budget:,} rows, and {len(rows):,} of the {pool_rows:,} rows have the score that this method "
            "chooses by"
        )
    return rows


def _by_similarity(similarity: np.ndarray, depth: int):
    """Yield all rows by falling similarity, never those of NaN; sorted `depth` at first, then twice as many."""
    distance = -np.asarray(similarity)
    scored = np.count_nonzero(~np.isnan(distance))
    done = 0
    while done < scored:
        depth = min(max(depth, 2 * done), scored)
        near = np.flatnonzero(distance <= np.partition(distance, depth - 1)[depth - 1])
        ordered = near[np.argsort(distance[near], kind="stable")].tolist()
        yield from ordered[done:]
        done = len(ordered)
