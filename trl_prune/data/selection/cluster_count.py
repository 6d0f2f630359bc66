"""How many clusters rows have, and how firmly: prediction strength, and agreement over subsamples.

The paper takes the number that minimises the factorisation's error, which falls with every cluster more. Prediction
strength (Tibshirani and Walther, 2005) asks instead whether one half of the rows finds the other's clusters again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import adjusted_rand_score

from trl_prune.data.selection.diffusion import DiffusionMap, DiffusionSettings, diffusion_map
from trl_prune.data.selection.factorisation import Factorisation, factorise
from trl_prune.data.selection.threads import one_thread


# Rows of each half, at most; more make the estimate no better, only slower.
HALF_ROWS = 2000


# Random divisions into halves; each is used in both directions.
NUM_SPLITS = 4


# A half must have this many rows per cluster, so that a cluster in it can be confirmed.
ROWS_PER_CLUSTER = 10


# The default least strength of an accepted number, see benchmarks/README.md.
MIN_STRENGTH = 0.7


# A larger number may be weaker than the strongest, but not below this share of it.
SHARE_OF_STRONGEST = 0.8


NUM_SUBSAMPLES, SUBSAMPLE_SHARE, SUBSAMPLE_ROWS = 5, 0.8, 4000


@dataclass(frozen=True)
class _Half:
    diffusion: DiffusionMap
    extended: np.ndarray  # the other half's rows on this half's map

    def fit(self, num_clusters: int, seed: int) -> Factorisation:
        return factorise(self.diffusion.coordinates[:, : num_clusters - 1], num_clusters, seed)


def prediction_strengths(
    vectors: np.ndarray, candidates: Sequence[int], seed: int, settings: DiffusionSettings
) -> dict[int, float]:
    """Return the prediction strength of each number of clusters for which there are enough rows, in [0, 1].

    Each half of the rows is clustered by itself. A cluster's strength is the share of its pairs of rows that the other
    half's clustering puts together too; a number's strength is that of its weakest cluster, averaged over halves and
    divisions.

    Args:
        vectors: embeddings, `(rows, width)`.
        candidates: numbers of clusters, at least 2.
        seed: of divisions and starts.
        settings: of the diffusion maps.
    """
    half_rows = min(len(vectors) // 2, HALF_ROWS)
    candidates = [count for count in candidates if count * ROWS_PER_CLUSTER <= half_rows]
    if not candidates:
        return {}
    generator = np.random.default_rng(seed)
    strengths: dict[int, list[float]] = {count: [] for count in candidates}
    with one_thread():
        for _ in range(NUM_SPLITS):
            order = generator.permutation(len(vectors))
            halves = _halves(
                vectors[order[:half_rows]], vectors[order[half_rows : 2 * half_rows]], max(candidates), settings
            )
            for count in candidates:
                strengths[count] += _both_directions(halves, count, seed)
    return {count: float(np.mean(values)) for count, values in strengths.items()}


def _halves(
    first: np.ndarray, second: np.ndarray, max_clusters: int, settings: DiffusionSettings
) -> tuple[_Half, _Half]:
    maps = [diffusion_map(vectors, max_clusters - 1, settings) for vectors in (first, second)]
    return _Half(maps[0], maps[0].extend(second)), _Half(maps[1], maps[1].extend(first))


def _both_directions(halves: tuple[_Half, _Half], num_clusters: int, seed: int) -> list[float]:
    fits = [half.fit(num_clusters, seed) for half in halves]
    own = [fit.w.argmax(axis=1) for fit in fits]
    predicted = [fit.predict(half.extended[:, : num_clusters - 1]) for fit, half in zip(fits, halves, strict=True)]
    return [
        weakest_strength(own[1], predicted[0], num_clusters),
        weakest_strength(own[0], predicted[1], num_clusters),
    ]


def weakest_strength(labels: np.ndarray, predicted: np.ndarray, num_clusters: int) -> float:
    """Return the least share of a cluster's pairs of rows that a prediction puts together.

    Clusters of fewer than two rows, empty ones included, have the strength 0: nothing confirms them.

    Args:
        labels: clusters of rows, `(rows,)`.
        predicted: clusters of the same rows by another clustering, `(rows,)`.
        num_clusters: clusters of each.
    """
    counts = np.zeros((num_clusters, num_clusters))
    np.add.at(counts, (labels, predicted), 1)
    sizes = counts.sum(axis=1)
    if sizes.min() < 2:
        return 0.0
    return float(((counts * (counts - 1)).sum(axis=1) / (sizes * (sizes - 1))).min())


def choose_count(strengths: dict[int, float], min_strength: float) -> int:
    """Return the largest number of clusters that is strong enough and stronger than the numbers beside it.

    Dividing one of several firm clusters costs little strength, which the comparisons with the numbers beside it and
    with the strongest catch.

    Args:
        strengths: of each number that was tried.
        min_strength: the least that is enough.

    Returns:
        The number; where none is, the strongest, and 1 if none was tried.
    """
    peaks = [count for count, strength in strengths.items() if strength >= _beside(strengths, count)]
    least = max(min_strength, SHARE_OF_STRONGEST * max(strengths.values(), default=0.0))
    strong = [count for count in peaks if strengths[count] >= least]
    return max(strong) if strong else max(strengths, key=strengths.__getitem__, default=1)


def _beside(strengths: dict[int, float], count: int) -> float:
    return max(strengths.get(count - 1, 0.0), strengths.get(count + 1, 0.0))


def stability(
    vectors: np.ndarray, labels: np.ndarray, cluster: Callable[[np.ndarray], np.ndarray], seed: int
) -> float:
    """Return how well clusterings of random subsamples agree with that of all rows: the mean adjusted Rand index.

    1 is perfect agreement, 0 that of random labels.

    Args:
        vectors: embeddings, `(rows, width)`.
        labels: clusters of the rows, `(rows,)`.
        cluster: returns the labels of embeddings.
        seed: of the subsamples.
    """
    generator = np.random.default_rng(seed)
    num_rows = min(max(2, int(SUBSAMPLE_SHARE * len(vectors))), SUBSAMPLE_ROWS)
    scores = []
    for _ in range(NUM_SUBSAMPLES):
        rows = np.sort(generator.choice(len(vectors), size=num_rows, replace=False))
        scores.append(adjusted_rand_score(labels[rows], cluster(vectors[rows])))
    return float(np.mean(scores))
