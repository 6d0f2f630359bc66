import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import silhouette_score

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection import diffusion
from trl_prune.data.selection.diffusion import DiffusionSettings, diffusion_map, leading_eigenvectors


def normalised(graph):
    """The normalised matrix of a graph and the square roots of its degrees."""
    root = np.sqrt(graph.sum(axis=1))
    return sp.csr_array(graph / np.outer(root, root)), root


def random_graph(num_rows, seed=0):
    weights = np.random.default_rng(seed).random((num_rows, num_rows)) ** 8
    return weights + weights.T


@pytest.mark.parametrize("dense_rows", [0, 1000])
def test_eigenvectors_are_those_of_the_dense_matrix_without_the_trivial_one(monkeypatch, dense_rows):
    monkeypatch.setattr(diffusion, "DENSE_ROWS", dense_rows)
    walk, root = normalised(random_graph(60))
    eigenvalues, eigenvectors = leading_eigenvectors(walk, root, 5)
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(walk.toarray())[::-1][1:6], atol=1e-6)
    np.testing.assert_allclose(walk @ eigenvectors, eigenvectors * eigenvalues, atol=1e-4)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(root @ eigenvectors, 0, atol=1e-4)


@pytest.mark.parametrize("dense_rows", [0, 1000])
def test_a_graph_in_parts_has_the_eigenvalue_1_for_each_but_one(monkeypatch, dense_rows):
    monkeypatch.setattr(diffusion, "DENSE_ROWS", dense_rows)
    graph = np.zeros((100, 100))
    for start in range(0, 100, 20):
        graph[start : start + 20, start : start + 20] = random_graph(20, start)
    walk, root = normalised(graph)
    eigenvalues, eigenvectors = leading_eigenvectors(walk, root, 7)
    np.testing.assert_allclose(eigenvalues, np.linalg.eigvalsh(graph / np.outer(root, root))[::-1][1:8], atol=1e-6)
    np.testing.assert_allclose(walk @ eigenvectors, eigenvectors * eigenvalues[None], atol=1e-4)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(7), atol=1e-6)
    np.testing.assert_allclose(root @ eigenvectors, 0, atol=1e-4)
    in_parts = (eigenvectors[:, :4] / root[:, None]).reshape(5, 20, 4)
    np.testing.assert_allclose(in_parts.std(axis=1), 0, atol=1e-9)


def test_of_more_parts_than_coordinates_the_smallest_count_as_one():
    sizes = [30, 20, 10, 5, 5]
    walk, root = normalised(sp.block_diag([np.ones((size, size)) for size in sizes]).toarray())
    eigenvalues, eigenvectors = leading_eigenvectors(walk, root, 2)
    np.testing.assert_array_equal(eigenvalues, 1)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(2), atol=1e-9)
    points = np.unique((eigenvectors / root[:, None]).round(9), axis=0)
    assert len(points) == 3


def test_separate_clusters_are_separate_points_of_the_map():
    vectors, labels = planted_clusters(300, 4, noise=0.5)
    result = diffusion_map(vectors, 3, DiffusionSettings())
    assert result.coordinates.shape == (300, 3)
    assert silhouette_score(result.coordinates, labels) > 0.99


def test_coordinates_are_scaled_by_the_eigenvalues_to_the_power_of_time():
    vectors, _ = planted_clusters(200, 3, noise=1.5)
    unscaled, scaled = (diffusion_map(vectors, 4, DiffusionSettings(time=time)) for time in (0, 3))
    np.testing.assert_allclose(scaled.coordinates, unscaled.coordinates * unscaled.eigenvalues**3, atol=1e-6)
    assert (unscaled.eigenvalues > 0).all()


def test_other_rows_are_mapped_near_the_rows_of_their_cluster():
    vectors, labels = planted_clusters(600, 3, noise=1.0)
    result = diffusion_map(vectors[:300], 2, DiffusionSettings())
    extended = result.extend(vectors[300:])
    centres = np.stack([result.coordinates[labels[:300] == label].mean(axis=0) for label in range(3)])
    distances = np.linalg.norm(extended[:, None] - centres[None], axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), labels[300:])


def test_the_extension_to_rows_beside_those_of_the_map_is_the_map():
    """On a circle the leading eigenvectors are smooth, and rows between others lie between them."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    result = diffusion_map(circle[::2], 2, DiffusionSettings())
    expected = (result.coordinates + np.roll(result.coordinates, -1, axis=0)) / 2
    np.testing.assert_allclose(result.extend(circle[1::2]), expected, atol=0.01)


def test_identical_rows_give_no_nan():
    vectors, _ = planted_clusters(40, 4, noise=0.5)
    vectors = np.repeat(vectors, 30, axis=0)
    result = diffusion_map(vectors, 5, DiffusionSettings())
    assert np.isfinite(result.coordinates).all()
    assert np.isfinite(result.extend(vectors[:50])).all()
    all_same = diffusion_map(np.ones((50, 4)), 3, DiffusionSettings())
    assert np.isfinite(all_same.coordinates).all()


def test_a_row_far_from_all_others_gives_no_nan():
    vectors = np.random.default_rng(0).normal(size=(100, 5)) * 1e-3
    vectors[7] = 100
    result = diffusion_map(vectors, 3, DiffusionSettings())
    assert np.isfinite(result.coordinates).all()
    assert np.isfinite(result.extend(np.full((2, 5), -50.0))).all()


def test_two_rows_have_one_coordinate():
    assert diffusion_map(np.eye(2), 5, DiffusionSettings()).coordinates.shape == (2, 1)


def test_the_map_is_the_same_every_time():
    vectors, _ = planted_clusters(700, 5, noise=2.0)
    first, second = (diffusion_map(vectors, 6, DiffusionSettings()).coordinates for _ in range(2))
    np.testing.assert_array_equal(first, second)
