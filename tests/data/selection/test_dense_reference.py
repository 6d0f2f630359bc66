import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics import normalized_mutual_info_score

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection.clustering import ClusteringSettings, cluster_rows
from trl_prune.data.selection.dense_reference import dense_clustering, dense_diffusion_map
from trl_prune.errors import InputError


def test_coordinates_are_right_eigenvectors_of_the_random_walk():
    vectors, _ = planted_clusters(60, 3, noise=1.0)
    squared = ((vectors[:, None].astype(float) - vectors[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / (2 * np.median(pdist(vectors.astype(float))) ** 2))
    walk = kernel / kernel.sum(axis=1, keepdims=True)
    coordinates = dense_diffusion_map(vectors, 4)
    eigenvalues = np.sort(np.linalg.eigvals(walk).real)[::-1][:4]
    np.testing.assert_allclose(walk @ coordinates, coordinates * eigenvalues, atol=1e-8)
    np.testing.assert_allclose(np.abs(coordinates[:, 0]), 1)
    np.testing.assert_allclose(dense_diffusion_map(vectors, 4, time=2), coordinates * eigenvalues**2, atol=1e-8)


@pytest.mark.parametrize("num_clusters", [2, 3, 6])
def test_the_sparse_method_finds_the_clusters_of_the_dense_one(num_clusters):
    vectors, labels = planted_clusters(240, num_clusters, noise=0.7)
    dense = cluster_rows(vectors, num_clusters, settings=ClusteringSettings(method="dense"))
    sparse = cluster_rows(vectors, num_clusters)
    assert normalized_mutual_info_score(labels, dense.labels) > 0.99
    assert normalized_mutual_info_score(labels, sparse.labels) > 0.99
    assert normalized_mutual_info_score(dense.labels, sparse.labels) > 0.99
    assert dense.coordinates_2d.shape == (240, 2)


def test_more_rows_than_matrices_of_all_pairs_can_have_are_an_error():
    with pytest.raises(InputError, match="at most 5,000 rows, and there are 5,001"):
        dense_clustering(np.ones((5001, 2)), 2, 0)
    with pytest.raises(InputError, match="at most 5,000 rows"):
        cluster_rows(np.ones((5001, 2)), 2, settings=ClusteringSettings(method="dense"))


def test_identical_rows_give_no_nan():
    assert np.isfinite(dense_diffusion_map(np.ones((20, 3)), 3)).all()
