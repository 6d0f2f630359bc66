import numpy as np
from scipy.spatial.distance import cdist

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection.neighbours import NeighbourSearch, blocks, landmark_rows


def test_neighbours_are_those_of_a_sorted_distance_matrix():
    vectors, _ = planted_clusters(80, 4, noise=1.0)
    distances = cdist(vectors, vectors)
    np.fill_diagonal(distances, np.inf)
    found = NeighbourSearch(vectors).among_themselves(5)
    np.testing.assert_array_equal(found.rows, np.argsort(distances, axis=1)[:, :5])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :5], atol=1e-5)


def test_other_rows_find_the_nearest_of_the_searched_ones():
    vectors, _ = planted_clusters(60, 3, noise=1.0)
    found = NeighbourSearch(vectors[:20]).nearest(vectors[20:].astype(np.float16), 3)
    np.testing.assert_allclose(found.distances, np.sort(cdist(vectors[20:], vectors[:20]), axis=1)[:, :3], atol=2e-3)


def test_a_row_is_not_its_own_neighbour_even_among_identical_ones():
    found = NeighbourSearch(np.ones((8, 4))).among_themselves(20)
    assert found.rows.shape == (8, 7)
    assert all(row not in neighbours for row, neighbours in enumerate(found.rows.tolist()))


def test_blocks_cover_all_rows_once():
    assert [row for block in blocks(10, 4) for row in range(10)[block]] == list(range(10))
    assert list(blocks(0)) == []


def test_landmarks_are_distinct_ascending_and_set_by_the_seed():
    rows = landmark_rows(1000, 100, seed=3)
    assert len(rows) == 100
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, landmark_rows(1000, 100, seed=3))
    assert (rows != landmark_rows(1000, 100, seed=4)).any()
    np.testing.assert_array_equal(landmark_rows(50, 100, seed=3), np.arange(50))
