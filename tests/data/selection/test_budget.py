import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.selection.budget import ALLOCATIONS, allocate, cluster_weights, resolve_budget
from trl_prune.errors import InputError


@st.composite
def allocations(draw):
    """A budget, integer weights and sizes of one to eight clusters."""
    clusters = draw(st.integers(1, 8))
    weights = draw(st.lists(st.integers(0, 1000), min_size=clusters, max_size=clusters))
    sizes = draw(st.lists(st.integers(0, 60), min_size=clusters, max_size=clusters).filter(any))
    budget = draw(st.integers(1, sum(sizes)))
    return budget, np.array(weights, dtype=float), np.array(sizes)


@given(allocations())
def test_counts_sum_to_the_budget_and_no_cluster_is_above_its_size(case):
    budget, weights, sizes = case
    counts = allocate(budget, weights, sizes)
    assert counts.dtype.kind == "i"
    assert counts.sum() == budget
    assert (counts >= 0).all()
    assert (counts <= sizes).all()


@given(allocations())
def test_a_larger_weight_never_gives_fewer_rows(case):
    budget, weights, sizes = case
    counts = allocate(budget, weights, sizes)
    for heavy in range(len(sizes)):
        for light in range(len(sizes)):
            if weights[heavy] > weights[light]:
                assert counts[heavy] >= min(counts[light], sizes[heavy])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any), st.integers(1, 500))
def test_counts_are_within_one_row_of_the_share_where_no_cluster_is_full(weights, budget):
    weights = np.array(weights, dtype=float)
    counts = allocate(budget, weights, np.full(len(weights), budget))
    shares = budget * weights / weights.sum()
    assert (np.abs(counts - shares) < 1).all()


@given(allocations())
def test_clusters_that_are_not_full_share_by_their_weights(case):
    budget, weights, sizes = case
    counts = allocate(budget, weights, sizes)
    open_ones = (counts < sizes) & (weights > 0)
    if open_ones.any():
        level = (counts[open_ones] / weights[open_ones]).max()
        slack = 1 / weights[open_ones].min() + 1 / weights[open_ones]
        assert (level - counts[open_ones] / weights[open_ones] <= slack + 1e-9).all()


def test_the_papers_formula_with_rounding_and_redistribution():
    # 10 rows for 5 : 3 : 2, and only 2 rows in the first cluster: its other 3 go to the others, 3 : 2
    assert allocate(10, np.array([0.5, 0.3, 0.2]), np.array([99, 99, 99])).tolist() == [5, 3, 2]
    assert allocate(10, np.array([0.5, 0.3, 0.2]), np.array([2, 99, 99])).tolist() == [2, 5, 3]


def test_clusters_without_weight_fill_up_by_their_sizes():
    assert allocate(8, np.zeros(3), np.array([20, 10, 10])).tolist() == [4, 2, 2]
    assert allocate(8, np.array([1.0, 0.0, 0.0]), np.array([2, 20, 10])).tolist() == [2, 4, 2]


@pytest.mark.parametrize(("budget", "message"), [(0, "budget is 0"), (-3, "budget is -3"), (7, "budget is 7 rows.*6")])
def test_a_budget_that_cannot_be_shared_is_an_error(budget, message):
    with pytest.raises(InputError, match=message):
        allocate(budget, np.ones(2), np.array([4, 2]))


def test_weights_of_each_allocation():
    degradation, sizes = np.array([0.3, 0.1, np.nan]), np.array([10, 20, 10])
    softmax = np.exp(np.array([0.3, 0.1, 0.0]) / 0.1)
    expected = {
        "degradation": [0.75, 0.25, 0.0],
        "equal": [1 / 3] * 3,
        "softmax": softmax / softmax.sum(),
        "size": [0.25, 0.5, 0.25],
    }
    assert set(expected) == set(ALLOCATIONS)
    for name, weights in expected.items():
        np.testing.assert_allclose(cluster_weights(degradation, sizes, name, 0.1), weights, rtol=1e-12)


def test_the_sizes_count_where_nothing_degraded():
    np.testing.assert_allclose(cluster_weights(np.zeros(2), np.array([30, 10])), [0.75, 0.25])


def test_the_temperature_goes_from_the_worst_cluster_alone_to_equal_shares():
    degradation, sizes = np.array([0.2, 0.6, 0.4]), np.ones(3)
    np.testing.assert_allclose(cluster_weights(degradation, sizes, "softmax", 1e-3), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(cluster_weights(degradation, sizes, "softmax", 1e6), [1 / 3] * 3, atol=1e-6)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_min=True))
def test_a_share_is_within_half_a_row(rows, share):
    count = resolve_budget(share, rows)
    assert 1 <= count <= rows
    assert count == 1 or abs(count - share * rows) <= 0.5


def test_a_count_is_taken_as_it_is():
    assert resolve_budget(1, 50) == 1
    assert resolve_budget(1.0, 50) == 50
    assert resolve_budget(np.int64(50), 50) == 50


@pytest.mark.parametrize("budget", [0, -1, 51, 0.0, 1.5, -0.1, math.nan, math.inf, True, "10", None])
def test_an_impossible_budget_names_the_value(budget):
    with pytest.raises(InputError, match=f"budget is {budget!r}"):
        resolve_budget(budget, 50)
