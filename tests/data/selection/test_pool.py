import numpy as np
import pytest

from trl_prune.data.selection.pool import Pool, degradation


def test_degradation_is_the_mean_divergence_of_a_clusters_answered_rows():
    pool = Pool(
        rows=np.arange(6),
        tokens=np.ones(6),
        answer_tokens=np.ones(6),
        divergence=np.array([0.1, 0.3, 0.5, np.nan, np.nan, 0.2]),
        clusters=np.array([0, 0, 1, 1, 2, 1]),
    )
    np.testing.assert_allclose(degradation(pool), [0.2, 0.35, np.nan])
    assert pool.num_clusters == 3
    assert pool.cluster_sizes.tolist() == [2, 3, 1]


def test_arrays_of_other_lengths_are_an_error():
    with pytest.raises(ValueError, match="clusters has 2 rows, and the pool has 3"):
        Pool(np.arange(3), np.ones(3), np.ones(3), clusters=np.zeros(2, dtype=int))
