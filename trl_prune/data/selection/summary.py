"""What a selection did, for a person and for further analysis: figures of rows, selections and clusters."""

import math
from dataclasses import asdict

import numpy as np
from datasets import Dataset

from trl_prune.data.selection.cluster_count import MIN_STRENGTH, choose_count
from trl_prune.data.selection.clustering import Clustering
from trl_prune.data.selection.consistency import Rejections
from trl_prune.data.selection.methods import selection_figures
from trl_prune.data.selection.pool import Pool, degradation
from trl_prune.data.selection.selection_run import SelectionResult, SelectionRows, SelectionSettings


# What is shown of each cluster, and of the rejected rows.
EXAMPLES, REJECTIONS = 3, 20


def pool_table(selected: SelectionResult) -> Dataset:
    """Return what was measured of every candidate, one row each.

    Columns, where measured: `row` (its index in the dataset), `tokens`, `answer_tokens`, `divergence`,
    `cross_entropy`, `answer_alone_cross_entropy`, `cluster`, `x` and `y` (the leading diffusion coordinates, with more
    than one cluster), and `selected`, whether the first selection has it.
    """
    pool, clustering = selected.pool, selected.clustering
    has_coordinates = clustering is not None and clustering.num_clusters > 1
    columns = {
        "row": pool.rows,
        "tokens": pool.tokens,
        "answer_tokens": pool.answer_tokens,
        "divergence": pool.divergence,
        "cross_entropy": pool.cross_entropy,
        "answer_alone_cross_entropy": pool.answer_alone_cross_entropy,
        "cluster": pool.clusters,
        "x": clustering.coordinates_2d[:, 0] if has_coordinates else None,
        "y": clustering.coordinates_2d[:, 1] if has_coordinates else None,
        "selected": np.isin(pool.rows, selected.own.rows),
    }
    return Dataset.from_dict({name: values for name, values in columns.items() if values is not None})


def selection_summary(selected: SelectionResult, rows: SelectionRows, settings: SelectionSettings) -> dict:
    """Return the figures of the candidates, of each selection and of each cluster, JSON-like.

    The keys:

    - `pool`: `rows`, `candidates`, `duplicates`, `without_answer`, numbers of rows.
    - `selections`: by name, `method`, the figures of `methods.selection_figures`, and `rejected`, the number of rows
      that the consistency filter rejected, None without it.
    - `clustering`: `clusters`, `stability`, `error`, `strengths` (prediction strength of each number of clusters that
      was tried), and `firm`, whether the number's strength reaches `MIN_STRENGTH`; None if none was tried. None where
      rows were not clustered.
    - `clusters`: by falling degradation, see `_clusters`; empty for selections without clusters.
    - `rejections`: of the first selection, `count` and the first `examples`; None without the filter.

    Args:
        selected: the selections.
        rows: the rows, for examples.
        settings: how the selections were made.
    """
    pool = {
        "rows": len(rows),
        "candidates": len(selected.pool),
        "duplicates": selected.duplicates,
        "without_answer": selected.without_answer,
    }
    return {
        "pool": pool,
        "selections": [_selection(selected, settings, name) for name in selected.selections],
        "clustering": None if selected.clustering is None else _clustering(selected.clustering),
        "clusters": [] if selected.pool.clusters is None else _clusters(selected, rows),
        "rejections": None if selected.own.rejections is None else _rejections(selected.own.rejections),
    }


def _selection(selected: SelectionResult, settings: SelectionSettings, name: str) -> dict:
    selection = selected.selections[name]
    rejected = None if selection.rejections is None else len(selection.rejections)
    figures = selection_figures(selection, selected.pool)
    return {"name": name, "method": settings.selections[name].method} | figures | {"rejected": rejected}


def _rejections(rejections: Rejections) -> dict:
    return {"count": len(rejections), "examples": rejections.examples(REJECTIONS)}


def _clustering(clustering: Clustering) -> dict:
    strengths = clustering.strengths
    # Not the strength of `num_clusters`: some of the chosen number of clusters may have no rows.
    firm = strengths[choose_count(strengths, MIN_STRENGTH)] >= MIN_STRENGTH if strengths else None
    return {
        "clusters": clustering.num_clusters,
        "stability": clustering.stability,
        "error": clustering.error,
        "strengths": [{"clusters": count, "strength": strength} for count, strength in strengths.items()],
        "firm": firm,
    }


def _clusters(selected: SelectionResult, rows: SelectionRows) -> list[dict]:
    """Return each cluster's figures, by falling degradation.

    The keys are `cluster`, `rows`, `degradation` (None if no row has an answer), `selected` (rows of the first
    selection), `budget` and `rejected` (None where that selection has no budgets by cluster), `phrases`, and
    `examples`, see `example_positions`.
    """
    by_degradation = sorted(
        _counts(selected), key=lambda counts: np.nan_to_num(counts["degradation"], nan=-1.0), reverse=True
    )
    return [_cluster(counts, selected, rows) for counts in by_degradation]


def _cluster(counts: dict, selected: SelectionResult, rows: SelectionRows) -> dict:
    pool, label, damage = selected.pool, counts["cluster"], counts["degradation"]
    examples = pool.rows[example_positions(pool.divergence, np.flatnonzero(pool.clusters == label))]
    return counts | {
        "degradation": None if math.isnan(damage) else damage,
        "phrases": selected.phrases[label],
        "examples": [rows.instructions[row] for row in examples.tolist()],
    }


def _counts(selected: SelectionResult) -> list[dict]:
    """Return each cluster's numbers of rows and degradation, from the first selection's own record if it has one."""
    if not selected.own.per_cluster:
        return _counts_of_pool(selected.pool, selected.own.rows)
    shares = [asdict(share) for share in selected.own.per_cluster]
    kept = ("cluster", "rows", "degradation", "budget", "rejected")
    return [{name: share[name] for name in kept} | {"selected": share["chosen"]} for share in shares]


def _counts_of_pool(pool: Pool, chosen: np.ndarray) -> list[dict]:
    selected = np.bincount(pool.clusters[np.isin(pool.rows, chosen)], minlength=pool.num_clusters)
    columns = zip(pool.cluster_sizes.tolist(), degradation(pool).tolist(), selected.tolist(), strict=True)
    return [
        {"cluster": label, "rows": rows, "degradation": damage, "budget": None, "rejected": None, "selected": count}
        for label, (rows, damage, count) in enumerate(columns)
    ]


def example_positions(divergence: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return positions of up to `EXAMPLES` rows of a cluster that have an answer.

    The first are typical: their divergences are nearest to the median. The last is the row of the highest divergence.

    Args:
        divergence: of every row of the pool.
        members: positions of the cluster's rows.
    """
    scored = members[~np.isnan(divergence[members])]
    if not len(scored):
        return scored
    values = divergence[scored]
    highest = values.argmax()
    distance = np.abs(values - np.median(values))
    distance[highest] = np.inf
    count = min(EXAMPLES, len(scored)) - 1
    # A partition, because a cluster may have a million rows.
    typical = np.argpartition(distance, max(count - 1, 0))[:count]
    typical = typical[np.argsort(distance[typical], kind="stable")]
    return scored[[*typical, highest]]
