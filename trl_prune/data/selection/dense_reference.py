"""The paper's dense formulas (2502.12594, section 3.2), for few rows: the reference for `clustering`.

Every matrix here has one entry per pair of rows. Where the paper leaves a choice, that of its published code is taken:
the kernel's width is the median distance; there are as many leading eigenvectors as clusters, with the trivial one,
without which `|Psi Psi^T|` of two opposite clusters would be constant; and they are not scaled. Scaled by the
eigenvalues of so wide a kernel, hardly anything but the trivial one would be left.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import NMF

from trl_prune.data.selection.factorisation import balance
from trl_prune.errors import InputError


MAX_ROWS = 5000


@dataclass(frozen=True)
class DenseClustering:
    """Clusters by the dense formulas.

    Attributes:
        labels: `(rows,)`.
        coordinates: diffusion coordinates, `(rows, clusters)`; the first is the trivial one.
        error: `||S - W H|| / ||S||`.
    """

    labels: np.ndarray
    coordinates: np.ndarray
    error: float


def dense_clustering(vectors: np.ndarray, num_clusters: int, seed: int, time: float = 0.0) -> DenseClustering:
    """Cluster rows: Gaussian kernel, diffusion coordinates, NMF of their absolute products, largest entry of `W`.

    Args:
        vectors: embeddings, `(rows, width)`.
        num_clusters: clusters and coordinates.
        seed: of the factorisation.
        time: coordinates are scaled by `eigenvalue ** time`.

    Raises:
        InputError: there are more than `MAX_ROWS` rows.
    """
    check_dense_rows(len(vectors))
    coordinates = dense_diffusion_map(vectors, num_clusters, time)
    affinity = np.abs(coordinates @ coordinates.T)
    model = NMF(num_clusters, init="nndsvda", random_state=seed, max_iter=1000)
    w, h = model.fit_transform(affinity), model.components_.T.copy()
    balance(w, h)
    error = float(model.reconstruction_err_ / np.linalg.norm(affinity))
    return DenseClustering(w.argmax(axis=1), coordinates, error)


def check_dense_rows(num_rows: int) -> None:
    """Check that there are few enough rows for matrices of all pairs.

    Raises:
        InputError: there are more than `MAX_ROWS`.
    """
    if num_rows > MAX_ROWS:
        raise InputError(
            f"clustering by dense matrices takes at most {MAX_ROWS:,} rows, and there are {num_rows:,}; "
            "the sparse method takes any number"
        )


def dense_diffusion_map(vectors: np.ndarray, num_coordinates: int, time: float = 0.0) -> np.ndarray:
    """Return the leading diffusion coordinates, the trivial one first, `(rows, num_coordinates)`.

    The random walk `D^-1 A` is not symmetric; its right eigenvectors are `D^-1/2` times those of the symmetric
    `D^-1/2 A D^-1/2`, and the eigenvalues are the same.
    """
    distances = pdist(np.asarray(vectors, dtype=np.float64))
    width = np.median(distances) or 1.0  # 0 where most rows are identical
    kernel = np.exp(-(squareform(distances) ** 2) / (2 * width**2))
    degrees = kernel.sum(axis=1)
    walk = kernel / np.sqrt(np.outer(degrees, degrees))
    last = len(walk) - 1
    eigenvalues, eigenvectors = scipy.linalg.eigh(walk, subset_by_index=[max(0, last - num_coordinates + 1), last])
    eigenvalues, eigenvectors = np.clip(eigenvalues[::-1], 0, 1), eigenvectors[:, ::-1]
    return eigenvectors / np.sqrt(degrees)[:, None] * np.sqrt(degrees.sum()) * eigenvalues**time
