"""Diffusion map of embeddings on a sparse graph of neighbours, for any number of rows (2502.12594, section 3.2).

The paper's kernel is dense, with the median distance of all pairs as its one width. Here each row has neighbours only,
and its own width, the distance to one of them (the self-tuning of Zelnik-Manor and Perona, 2004), so that dense and
sparse regions are resolved alike. Memory and time are linear in the rows.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh

from trl_prune.data.selection.neighbours import Neighbours, NeighbourSearch
from trl_prune.data.selection.threads import one_thread


# Below this many rows, all eigenvectors at once are as fast as Lanczos iterations, which need more rows than vectors.
DENSE_ROWS = 300


# Widths are at least this share of their median: rows with many identical neighbours would have width 0.
SMALLEST_WIDTH = 0.01


# Weights are at least exp(-LARGEST_EXPONENT): a row far from all others keeps its neighbours.
LARGEST_EXPONENT = 25.0


EIGENVALUE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class DiffusionSettings:
    """How rows are connected and how far diffusion goes.

    Attributes:
        num_neighbours: neighbours of each row in the graph.
        width_neighbour: the kernel's width at a row is the distance to this neighbour, counted from 1.
        time: diffusion steps: coordinates are scaled by `eigenvalue ** time`.
    """

    num_neighbours: int = 15
    width_neighbour: int = 7
    time: float = 1.0


@dataclass(frozen=True)
class DiffusionMap:
    """Diffusion coordinates of some rows, and what extends them to others.

    Attributes:
        coordinates: of each row, `(rows, num_coordinates)`, float64, slowest first; fewer than were asked for if there
            are few rows.
        eigenvalues: of the random walk, `(num_coordinates,)`, in [0, 1]; the trivial one is left out.
        widths: the kernel's width at each row, `(rows,)`.
        search: finds the nearest of the rows.
        settings: as given.
    """

    coordinates: np.ndarray
    eigenvalues: np.ndarray
    widths: np.ndarray
    search: NeighbourSearch
    settings: DiffusionSettings

    def extend(self, vectors: np.ndarray) -> np.ndarray:
        """Return the coordinates of other rows, `(rows, num_coordinates)`, by Nystrom's formula.

        `coordinate(x) = sum_j p(x, j) coordinate(j) / eigenvalue`, with `p` the kernel to the nearest rows of the map,
        normalised to sum 1.
        """
        neighbours = self.search.nearest(vectors, self.settings.num_neighbours)
        widths = _widths(neighbours, self.settings, smallest=self.widths.min())
        weights = _kernel(neighbours.distances, widths[:, None], self.widths[neighbours.rows])
        weights /= weights.sum(axis=1, keepdims=True)
        means = np.einsum("rn,rnc->rc", weights, self.coordinates[neighbours.rows])
        return means / np.maximum(self.eigenvalues, np.finfo(float).tiny)


def diffusion_map(vectors: np.ndarray, num_coordinates: int, settings: DiffusionSettings) -> DiffusionMap:
    """Return the diffusion map of rows: leading eigenvectors of the random walk between neighbours.

    Args:
        vectors: normalised embeddings, `(rows, width)`, at least two rows.
        num_coordinates: coordinates besides the trivial constant one.
        settings: graph and time.
    """
    search = NeighbourSearch(vectors)
    neighbours = search.among_themselves(settings.num_neighbours)
    widths = _widths(neighbours, settings)
    graph = _symmetric_graph(neighbours, widths)
    degrees = graph.sum(axis=1)
    root = np.sqrt(degrees)
    walk = sp.diags_array(1 / root) @ graph @ sp.diags_array(1 / root)
    eigenvalues, eigenvectors = leading_eigenvectors(walk.tocsr(), root, num_coordinates)
    eigenvalues = np.clip(eigenvalues, 0, 1)
    coordinates = eigenvectors / root[:, None] * np.sqrt(degrees.sum()) * eigenvalues**settings.time
    return DiffusionMap(_with_fixed_signs(coordinates), eigenvalues, widths, search, settings)


def _widths(neighbours: Neighbours, settings: DiffusionSettings, smallest: float = 0.0) -> np.ndarray:
    distances = neighbours.distances
    widths = distances[:, min(settings.width_neighbour, distances.shape[1]) - 1]
    positive = widths[widths > 0]
    floor = SMALLEST_WIDTH * np.median(positive) if len(positive) else 1.0
    return np.maximum(widths, smallest or floor)


def _kernel(distances: np.ndarray, widths: np.ndarray, neighbour_widths: np.ndarray) -> np.ndarray:
    return np.exp(-np.minimum(distances**2 / (widths * neighbour_widths), LARGEST_EXPONENT))


def _symmetric_graph(neighbours: Neighbours, widths: np.ndarray) -> sp.csr_array:
    """Return the kernel between rows of which at least one is among the other's neighbours."""
    num_rows, count = neighbours.rows.shape
    weights = _kernel(neighbours.distances, widths[:, None], widths[neighbours.rows])
    starts = np.arange(0, num_rows * count + 1, count)
    graph = sp.csr_array((weights.ravel(), neighbours.rows.ravel(), starts), shape=(num_rows, num_rows))
    return graph.maximum(graph.T).tocsr()


def leading_eigenvectors(walk: sp.csr_array, root: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues of a normalised graph and their eigenvectors, without the trivial vector.

    A graph in several parts has the eigenvalue 1 once for each. Lanczos iterations, which begin with one vector, find
    such eigenvalues by chance; but the eigenvectors are known: `root` on one part and 0 elsewhere. So they are
    deflated, and of what they span, the complement of the trivial vector `root` comes first.

    Args:
        walk: `D^-1/2 A D^-1/2`, symmetric, `(rows, rows)`.
        root: the square roots of the degrees, `(rows,)`, which is the trivial eigenvector.
        count: eigenvectors wanted.

    Returns:
        Eigenvalues, `(found,)`, descending, and eigenvectors, `(rows, found)`, where `found` is at most `rows - 1`.
    """
    num_parts, parts = connected_components(walk, directed=False)
    count = min(count, len(root) - 1)
    of_parts = _eigenvectors_of_parts(parts, root, count)
    remaining = count - of_parts.shape[1]
    if remaining <= 0:
        return np.ones(count), of_parts
    indicators = _part_vectors(parts, root, num_parts)
    eigenvalues, eigenvectors = _largest(walk, indicators, remaining)
    return np.concatenate([np.ones(of_parts.shape[1]), eigenvalues]), np.hstack([of_parts, eigenvectors])


def _part_vectors(parts: np.ndarray, root: np.ndarray, num_parts: int) -> sp.csr_array:
    vectors = sp.csr_array((root, (np.arange(len(root)), parts)), shape=(len(root), num_parts))
    norms = np.sqrt(np.bincount(parts, weights=root**2, minlength=num_parts))
    return (vectors @ sp.diags_array(1 / norms)).tocsr()


def _eigenvectors_of_parts(parts: np.ndarray, root: np.ndarray, count: int) -> np.ndarray:
    """Return an orthonormal basis of the eigenvalue 1 without the trivial vector; surplus small parts count as one."""
    volumes = np.bincount(parts, weights=root**2)
    ranks = np.argsort(np.argsort(-volumes, kind="stable"), kind="stable")
    groups = np.minimum(ranks, count)[parts]
    num_groups = groups.max() + 1
    shares = np.sqrt(np.bincount(groups, weights=root**2) / volumes.sum())
    return _part_vectors(groups, root, num_groups) @ scipy.linalg.null_space(shares[None])


def _largest(walk: sp.csr_array, deflated: sp.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    num_rows = walk.shape[0]
    if num_rows <= max(DENSE_ROWS, 3 * count):
        matrix = walk.toarray() - (deflated @ deflated.T).toarray()
        eigenvalues, eigenvectors = scipy.linalg.eigh(matrix, subset_by_index=[num_rows - count, num_rows - 1])
    else:
        operator = LinearOperator(
            walk.shape, matvec=lambda vector: walk @ vector - deflated @ (deflated.T @ vector), dtype=np.float64
        )
        first = np.random.default_rng(0).standard_normal(num_rows)
        with one_thread():
            eigenvalues, eigenvectors = eigsh(operator, k=count, which="LA", v0=first, tol=EIGENVALUE_TOLERANCE)
    order = np.argsort(-eigenvalues, kind="stable")
    return eigenvalues[order], eigenvectors[:, order]


def _with_fixed_signs(coordinates: np.ndarray) -> np.ndarray:
    """Return coordinates whose largest entry by size is positive; an eigenvector's sign is arbitrary."""
    largest = coordinates[np.abs(coordinates).argmax(axis=0), np.arange(coordinates.shape[1])]
    return coordinates * np.where(largest < 0, -1, 1)
