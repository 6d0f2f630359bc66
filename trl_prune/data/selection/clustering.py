"""Cluster rows by their embeddings: diffusion map and non-negative factorisation (2502.12594, section 3.2).

Up to some number of rows all are clustered at once. Beyond it, a random sample is, the landmarks; the others get their
coordinates from the nearest landmarks and then their clusters, block by block, so that memory hardly depends on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trl_prune.data.selection.cluster_count import MIN_STRENGTH, choose_count, prediction_strengths, stability
from trl_prune.data.selection.dense_reference import MAX_ROWS, check_dense_rows, dense_clustering
from trl_prune.data.selection.diffusion import DiffusionSettings, diffusion_map
from trl_prune.data.selection.duplicates import near_duplicates
from trl_prune.data.selection.factorisation import factorise
from trl_prune.data.selection.neighbours import blocks, landmark_rows
from trl_prune.errors import InputError


NUM_STARTS = 3


@dataclass(frozen=True)
class ClusteringSettings:
    """How rows are clustered.

    Attributes:
        method: `sparse`, or `dense` for the paper's own formulas, for few rows.
        landmarks: up to this many rows are clustered at once; of more, this many are, as a random sample.
        fewest: the least number of clusters that `auto` tries.
        most: the largest.
        min_strength: the prediction strength from which `auto` accepts a number.
        diffusion: graph and time of the diffusion map; not of the dense method.
    """

    method: Literal["sparse", "dense"] = "sparse"
    landmarks: int = 20_000
    fewest: int = 2
    most: int = 30
    min_strength: float = MIN_STRENGTH
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)


@dataclass(frozen=True)
class Clustering:
    """Clusters of rows.

    Attributes:
        labels: `(rows,)`, int32; clusters are numbered by falling size.
        num_clusters: clusters with rows; fewer than were asked for if some have none.
        stability: mean adjusted Rand index between this clustering and those of random subsamples, at most 1.
        error: relative error of the factorisation.
        coordinates_2d: the two leading diffusion coordinates, `(rows, 2)`, float32.
        strengths: prediction strength of each number that was tried; empty if the number was given.
    """

    labels: np.ndarray
    num_clusters: int
    stability: float
    error: float
    coordinates_2d: np.ndarray
    strengths: dict[int, float]


def cluster_rows(
    embeddings: np.ndarray,
    num_clusters: int | Literal["auto"] = "auto",
    seed: int = 0,
    settings: ClusteringSettings | None = None,
) -> Clustering:
    """Cluster rows by their embeddings.

    With `auto`, the number of clusters is the largest whose prediction strength reaches `min_strength` and is above
    that of the numbers beside it (`cluster_count.choose_count`); if there is none, the strongest. Identical rows share
    a cluster, so there are at most as many clusters as distinct rows.

    Args:
        embeddings: normalised, `(rows, width)`; may be mapped from disk, and is read in blocks.
        num_clusters: how many, or `auto`.
        seed: of the sample, the starts, and the divisions behind `auto` and the stability.
        settings: the defaults if None.

    Raises:
        InputError: there are no rows, fewer rows than clusters, or too many for the dense method.
    """
    settings = settings or ClusteringSettings()
    _check_counts(len(embeddings), num_clusters, settings)
    # The dense method gives other rows no coordinates, and takes few enough to have all of them.
    most = settings.landmarks if settings.method == "sparse" else MAX_ROWS
    sample = landmark_rows(len(embeddings), most, seed)
    vectors, copies = _distinct(np.asarray(embeddings[sample], dtype=np.float32))
    strengths = {}
    if num_clusters == "auto":
        candidates = range(settings.fewest, settings.most + 1)
        strengths = prediction_strengths(vectors, candidates, seed, settings.diffusion)
        num_clusters = choose_count(strengths, settings.min_strength)
    num_clusters = min(num_clusters, len(vectors))
    if num_clusters == 1:
        return _one_cluster(len(embeddings), strengths)
    fit = FITS[settings.method]
    fitted = fit(vectors, num_clusters, seed, settings.diffusion)
    agreement = stability(
        vectors,
        fitted.labels,
        lambda part: fit(part, min(num_clusters, len(part)), seed, settings.diffusion).labels,
        seed,
    )
    labels, coordinates = _assign(embeddings, sample, copies, fitted)
    labels, num_found = by_falling_size(labels)
    return Clustering(labels, num_found, agreement, fitted.error, coordinates, strengths)


def _check_counts(num_rows: int, num_clusters: int | Literal["auto"], settings: ClusteringSettings) -> None:
    if num_rows == 0:
        raise InputError("there are no rows to cluster")
    if num_clusters != "auto" and not 1 <= num_clusters <= num_rows:
        raise InputError(f"{num_clusters} clusters of {num_rows} rows are asked for; wanted: auto, or 1 to {num_rows}")
    if settings.method == "dense":
        check_dense_rows(num_rows)


def _distinct(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows, and for each row the position of its copy among them.

    A row with more copies than neighbours would be a part of the graph by itself.
    """
    stands_for = near_duplicates(vectors, similarity=1.0)
    first, copies = np.unique(stands_for, return_inverse=True)
    return vectors[first], copies


def _one_cluster(num_rows: int, strengths: dict[int, float]) -> Clustering:
    return Clustering(np.zeros(num_rows, np.int32), 1, 1.0, 0.0, np.zeros((num_rows, 2), np.float32), strengths)


@dataclass(frozen=True)
class Fitted:
    """Clusters of some rows.

    Attributes:
        labels: `(rows,)`.
        coordinates: their diffusion coordinates without the trivial one, `(rows, coordinates)`.
        error: relative error of the factorisation.
        assign: returns labels and coordinates of other rows, given their embeddings; None for the dense method.
    """

    labels: np.ndarray
    coordinates: np.ndarray
    error: float
    assign: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


def fit_sparse(vectors: np.ndarray, num_clusters: int, seed: int, settings: DiffusionSettings) -> Fitted:
    """Cluster rows on their sparse graph, by as many eigenvectors as clusters, with the trivial one."""
    diffusion = diffusion_map(vectors, max(num_clusters - 1, 2), settings)
    factors = factorise(diffusion.coordinates[:, : num_clusters - 1], num_clusters, seed, NUM_STARTS)

    def assign(others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        coordinates = diffusion.extend(others)
        return factors.predict(coordinates[:, : num_clusters - 1]), coordinates

    return Fitted(factors.w.argmax(axis=1), diffusion.coordinates, factors.error, assign)


def fit_dense(vectors: np.ndarray, num_clusters: int, seed: int, settings: DiffusionSettings) -> Fitted:  # noqa: ARG001
    """Cluster rows by the paper's dense formulas, which have no settings."""
    result = dense_clustering(vectors, num_clusters, seed)
    return Fitted(result.labels, result.coordinates[:, 1:], result.error)


FITS = {"sparse": fit_sparse, "dense": fit_dense}


def _assign(
    embeddings: np.ndarray, sample: np.ndarray, copies: np.ndarray, fitted: Fitted
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's label and its two leading coordinates, float32."""
    labels = np.empty(len(embeddings), dtype=np.int32)
    plane = np.zeros((len(embeddings), 2), dtype=np.float32)
    if len(sample) < len(embeddings):
        for rows in blocks(len(embeddings)):
            labels[rows], coordinates = fitted.assign(embeddings[rows])
            plane[rows, : coordinates.shape[1]] = coordinates[:, :2]
    labels[sample] = fitted.labels[copies]
    plane[sample, : fitted.coordinates.shape[1]] = fitted.coordinates[copies, :2]
    return labels, plane


def by_falling_size(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Renumber clusters so that 0 is the largest, and return their number; of equal ones, the first one's is lower."""
    names, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    ranks = np.empty(len(names), dtype=np.int32)
    ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(names))
    return ranks[inverse], len(names)
