"""Non-negative factorisation of an affinity that is never formed (2502.12594, section 3.2: `S ~ W H`).

The affinity is `S = X X^T`, with `X` the diffusion coordinates and the trivial constant one, as large as the others on
average. For clusters that are well separated, it is a block of positive numbers for each and 0 elsewhere, so the
factorisation is exact. The paper's `|Psi Psi^T|` of coordinates without the constant one has no such zeros: two
opposite clusters look alike in it.

All that the updates need of `S` are products `X (X^T W)`: time `O(N k K)`, memory `O(N (k + K))` for N rows, k
coordinates and K clusters.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from trl_prune.data.selection.threads import one_thread


MAX_SWEEPS = 200


# Sweeps between two computations of the error, and the relative improvement below which iterations end.
CHECK_SWEEPS, TOLERANCE = 5, 1e-5


PREDICTION_TOLERANCE = 1e-4


# Added to starting values, so that no entry is stuck at 0 from the start.
START_OFFSET = 1e-3


TINY = 1e-12


@dataclass(frozen=True)
class Factorisation:
    """`S ~ W H^T` with non-negative `W` and `H`.

    Attributes:
        w: `(rows, clusters)`.
        h: `(rows, clusters)`; its columns have the norms of those of `w`.
        error: `||S - W H^T|| / ||S||`, Frobenius norms.
        projections: `X^T H`, `(1 + coordinates, clusters)`.
        constant: the trivial coordinate of each row.
    """

    w: np.ndarray
    h: np.ndarray
    error: float
    projections: np.ndarray
    constant: float

    def predict(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the cluster of rows, given their diffusion coordinates: the largest entry of their rows of `W`.

        The row of `W` is the non-negative least-squares solution for the row's affinities to the factorised rows, with
        `H` given. A row that has none above 0 goes to the cluster to which it is the least dissimilar.

        Args:
            coordinates: `(rows, coordinates)`.

        Returns:
            Indices of clusters, `(rows,)`.
        """
        products = with_constant(coordinates, self.constant) @ self.projections
        gram = self.h.T @ self.h
        w = np.maximum(products, 0) / np.maximum(np.diag(gram), TINY)
        with one_thread():
            _descend_given(w, products, gram)
        without = w.max(axis=1) <= 0
        w[without] = (products / np.maximum(np.sqrt(np.diag(gram)), TINY))[without]
        return w.argmax(axis=1)


def _descend_given(w: np.ndarray, products: np.ndarray, gram: np.ndarray) -> None:
    for _ in range(MAX_SWEEPS):
        before = w.copy()
        update_columns(w, products, gram)
        if np.abs(w - before).max(initial=0) <= PREDICTION_TOLERANCE * w.max(initial=0):
            break


def factorise(coordinates: np.ndarray, num_clusters: int, seed: int, num_starts: int = 1) -> Factorisation:
    """Return the factorisation with the least error of some starts, each from k-means on the coordinates.

    Args:
        coordinates: diffusion coordinates without the constant one, `(rows, coordinates)`.
        num_clusters: the rank, at most `rows`.
        seed: of the first start; the others have the next seeds.
        num_starts: starts.
    """
    x = with_constant(coordinates, mean_size(coordinates))
    with one_thread():
        results = [_descend(x, _start(x, num_clusters, seed + start)) for start in range(num_starts)]
    return min(results, key=lambda result: result.error)


def mean_size(coordinates: np.ndarray) -> float:
    """Return the mean over coordinates of the root of the mean square over rows; 1 if all are 0."""
    return float(np.sqrt(np.square(coordinates).mean(axis=0)).mean()) or 1.0


def with_constant(coordinates: np.ndarray, constant: float) -> np.ndarray:
    """Return coordinates after a first one that is the same for all rows, `(rows, 1 + coordinates)`."""
    return np.hstack([np.full((len(coordinates), 1), constant), coordinates])


def _start(x: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Return each row's affinity to the centres of k-means, `(rows, clusters)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: some stay empty
        centres = KMeans(num_clusters, n_init=1, random_state=seed).fit(x).cluster_centers_
    affinities = np.maximum(x @ centres.T, 0) / np.linalg.norm(centres, axis=1)
    return affinities + START_OFFSET * affinities.max()


def _descend(x: np.ndarray, start: np.ndarray) -> Factorisation:
    """Run hierarchical alternating least squares (Cichocki and Phan, 2009) from a start."""
    w, h, error = start.copy(), start.copy(), np.inf
    for sweep in range(MAX_SWEEPS):
        for left, right in ((w, h), (h, w)):
            update_columns(left, x @ (x.T @ right), right.T @ right)
            balance(w, h)
        if sweep % CHECK_SWEEPS == CHECK_SWEEPS - 1:
            last, error = error, relative_error(x, w, h)
            if last - error <= TOLERANCE * last:
                break
    return Factorisation(w, h, relative_error(x, w, h), x.T @ h, float(x[0, 0]))


def update_columns(w: np.ndarray, products: np.ndarray, gram: np.ndarray) -> None:
    """Set each column of `w` in turn to the best non-negative one, the others and `H` given.

    Args:
        w: changed in place, `(rows, clusters)`.
        products: `S H`, `(rows, clusters)`.
        gram: `H^T H`, `(clusters, clusters)`.
    """
    for column in range(w.shape[1]):
        step = (products[:, column] - w @ gram[:, column]) / max(gram[column, column], TINY)
        w[:, column] = np.maximum(w[:, column] + step, 0)


def balance(w: np.ndarray, h: np.ndarray) -> None:
    """Give the columns of both factors equal norms: the largest entry of a row would depend on the division."""
    norms_w, norms_h = (np.maximum(np.linalg.norm(factor, axis=0), TINY) for factor in (w, h))
    scale = np.sqrt(norms_w / norms_h)
    w /= scale
    h *= scale


def relative_error(x: np.ndarray, w: np.ndarray, h: np.ndarray) -> float:
    """Return `||X X^T - W H^T|| / ||X X^T||` from products of small matrices."""
    size = np.square(x.T @ x).sum()
    common = ((x.T @ w) * (x.T @ h)).sum()
    approximation = ((w.T @ w) * (h.T @ h)).sum()
    return float(np.sqrt(max(size - 2 * common + approximation, 0) / size))
