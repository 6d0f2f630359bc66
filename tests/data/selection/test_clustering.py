import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection.clustering import ClusteringSettings, by_falling_size, cluster_rows
from trl_prune.errors import InputError


def agreement(labels, other):
    return normalized_mutual_info_score(labels, other)


def test_planted_clusters_are_found_and_counted():
    vectors, labels = planted_clusters(600, 5, noise=1.2)
    result = cluster_rows(vectors, settings=ClusteringSettings(most=8))
    assert result.num_clusters == 5
    assert agreement(labels, result.labels) > 0.99
    assert result.stability > 0.99
    assert result.error < 0.1
    assert set(result.strengths) == set(range(2, 9))
    assert result.coordinates_2d.shape == (600, 2)


def test_a_given_number_is_taken():
    vectors, labels = planted_clusters(300, 4, noise=1.2)
    result = cluster_rows(vectors, 4)
    assert result.num_clusters == 4
    assert agreement(labels, result.labels) > 0.99
    assert result.strengths == {}


@pytest.mark.parametrize("num_clusters", [2, 4])
def test_rows_beside_the_landmarks_get_their_clusters(tmp_path, num_clusters):
    vectors, labels = planted_clusters(2000, num_clusters, noise=1.2)
    np.save(tmp_path / "vectors.npy", vectors.astype(np.float16))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    result = cluster_rows(mapped, num_clusters, settings=ClusteringSettings(landmarks=400))
    assert agreement(labels, result.labels) > 0.98
    assert agreement(cluster_rows(vectors, num_clusters).labels, result.labels) > 0.98
    assert np.isfinite(result.coordinates_2d).all()


def test_clusters_are_numbered_by_falling_size():
    vectors, labels = planted_clusters(400, 4, noise=0.8)
    chosen = np.concatenate([np.flatnonzero(labels == label)[: 25 * (label + 1)] for label in range(4)])
    result = cluster_rows(vectors[chosen], 4)
    np.testing.assert_array_equal(np.bincount(result.labels), [100, 75, 50, 25])
    np.testing.assert_array_equal(result.labels, 3 - labels[chosen])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_renumbering_keeps_clusters_together(labels):
    renumbered, count = by_falling_size(np.array(labels))
    assert count == len(set(labels)) == len(set(zip(labels, renumbered.tolist(), strict=True)))
    assert (np.diff(np.bincount(renumbered)) <= 0).all()


@pytest.mark.parametrize("num_clusters", ["auto", 3])
def test_the_seed_determines_everything(num_clusters):
    vectors, _ = planted_clusters(300, 3, noise=2.5)
    settings = ClusteringSettings(landmarks=200, most=4)
    first, second = (cluster_rows(vectors, num_clusters, 7, settings) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.coordinates_2d, second.coordinates_2d)
    assert first.stability == second.stability


@pytest.mark.parametrize("num_clusters", ["auto", 1, 3])
def test_identical_rows_are_one_cluster(num_clusters):
    result = cluster_rows(np.full((50, 4), 0.5, np.float16), num_clusters)
    assert result.num_clusters == 1
    assert result.labels.tolist() == [0] * 50
    assert result.stability == 1


def test_few_rows_are_one_cluster_unless_a_number_is_given():
    vectors, _ = planted_clusters(6, 2, noise=0.1)
    assert cluster_rows(vectors).num_clusters == 1
    assert cluster_rows(vectors[:1]).labels.tolist() == [0]
    assert cluster_rows(vectors, 2).num_clusters == 2
    assert np.isfinite(cluster_rows(vectors, 6).coordinates_2d).all()


def test_many_identical_rows_among_others_are_clustered():
    vectors, labels = planted_clusters(120, 3, noise=0.5)
    repeated = np.repeat(vectors, 20, axis=0)
    assert agreement(np.repeat(labels, 20), cluster_rows(repeated, 3).labels) > 0.9


@pytest.mark.parametrize(("num_rows", "num_clusters"), [(3, 4), (3, 0)])
def test_a_number_of_clusters_that_rows_cannot_have_is_an_error(num_rows, num_clusters):
    with pytest.raises(InputError, match=rf"{num_clusters} clusters of {num_rows} rows .* 1 to {num_rows}"):
        cluster_rows(np.eye(num_rows), num_clusters)


def test_no_rows_are_an_error():
    with pytest.raises(InputError, match="no rows to cluster"):
        cluster_rows(np.empty((0, 4)))
