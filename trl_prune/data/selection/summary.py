"""What a selection did, for a person and for further analysis: figures of rows, selections and clusters."""

import numpy as np
from datasets import Dataset

from trl_prune.data.selection.choosing import row_scores
from trl_prune.data.selection.methods import summary
from trl_prune.data.selection.selecting import Selected, SelectionRows, SelectionSettings


# What is shown of each cluster, and of the rejected rows.
EXAMPLES, REJECTIONS = 3, 20


def pool_table(selected: Selected) -> Dataset:
    """Return what was measured of every candidate, one row each.

    Columns, where measured: `row` (its index in the dataset), `tokens`, `answer_tokens`, `divergence`,
    `cross_entropy`, `answer_alone_cross_entropy`, `cluster`, `x` and `y` (the leading diffusion coordinates), and
    `selected`, whether the first selection has it.
    """
    pool, clustering = selected.pool, selected.clustering
    columns = {
        "row": pool.rows,
        "tokens": pool.tokens,
        "answer_tokens": pool.answer_tokens,
        "divergence": pool.divergence,
        "cross_entropy": pool.cross_entropy,
        "answer_alone_cross_entropy": pool.answer_alone_cross_entropy,
        "cluster": pool.clusters,
        "x": None if clustering is None else clustering.coordinates_2d[:, 0],
        "y": None if clustering is None else clustering.coordinates_2d[:, 1],
        "selected": np.isin(pool.rows, selected.own.rows),
    }
    return Dataset.from_dict({name: values for name, values in columns.items() if values is not None})


def selection_summary(selected: Selected, rows: SelectionRows, settings: SelectionSettings) -> dict:
    """Return the figures of the candidates, of each selection and of each cluster, JSON-like.

    Args:
        selected: the selections.
        rows: the rows, for examples.
        settings: how the selections were made.
    """
    clustering, rejections = selected.clustering, selected.own.rejections
    pool = {
        "rows": len(rows),
        "candidates": len(selected.pool),
        "duplicates": selected.duplicates,
        "without_answer": selected.without_answer,
    }
    return {
        "pool": pool,
        "selections": {name: _figures(selected, settings, name) for name in selected.selections},
        "clusters": [_cluster(selected, rows, settings, label) for label in range(_num_clusters(selected))],
        "stability": None if clustering is None else clustering.stability,
        "rejections": [] if rejections is None else rejections.examples(REJECTIONS),
    }


def _figures(selected: Selected, settings: SelectionSettings, name: str) -> dict:
    selection = selected.selections[name]
    rejected = None if selection.rejections is None else len(selection.rejections)
    figures = summary(selection, selected.pool)
    return {"method": settings.choices[name].method} | figures | {"rejected": rejected}


def _num_clusters(selected: Selected) -> int:
    return 0 if selected.pool.clusters is None else selected.pool.num_clusters


def _cluster(selected: Selected, rows: SelectionRows, settings: SelectionSettings, label: int) -> dict:
    """Return a cluster's figures, with the rows that PASER values most as examples."""
    pool, choosing = selected.pool, next(iter(settings.choices.values())).choosing
    members = pool.clusters == label
    scores = np.where(members, np.nan_to_num(row_scores(pool, choosing), nan=-np.inf), -np.inf)
    top = [position for position in np.argsort(-scores)[:EXAMPLES] if members[position]]
    divergence = pool.divergence[members & ~np.isnan(pool.divergence)]
    return {
        "cluster": label,
        "rows": int(members.sum()),
        "degradation": float(divergence.mean()) if len(divergence) else 0.0,
        "selected": int(np.isin(pool.rows[members], selected.own.rows).sum()),
        "phrases": selected.phrases[label],
        "examples": [rows.instructions[pool.rows[position]] for position in top],
    }
