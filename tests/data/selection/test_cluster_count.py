import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.selection.planted import planted_clusters
from trl_prune.data.selection.cluster_count import choose_count, prediction_strengths, stability, weakest_strength
from trl_prune.data.selection.diffusion import DiffusionSettings


LABELS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(LABELS)
def test_strength_is_the_weakest_clusters_share_of_pairs_that_stay_together(pairs):
    labels, predicted = np.array(pairs).T
    shares = []
    for cluster in range(3):
        rows = np.flatnonzero(labels == cluster)
        together = [predicted[one] == predicted[other] for one in rows for other in rows if one < other]
        shares.append(np.mean(together) if together else 0)
    assert weakest_strength(labels, predicted, 3) == pytest.approx(min(shares))


@pytest.mark.parametrize("num_clusters", [2, 5])
def test_the_number_of_planted_clusters_is_chosen(num_clusters):
    vectors, _ = planted_clusters(300, num_clusters, noise=1.0)
    strengths = prediction_strengths(vectors, range(2, 9), 0, DiffusionSettings())
    assert choose_count(strengths, 0.7) == num_clusters
    assert strengths[num_clusters] > 0.95


def test_rows_without_clusters_have_no_strong_number():
    vectors = np.random.default_rng(0).normal(size=(300, 64))
    assert max(prediction_strengths(vectors, range(2, 6), 0, DiffusionSettings()).values()) < 0.7


def test_numbers_with_too_few_rows_to_confirm_them_are_not_tried():
    vectors, _ = planted_clusters(100, 2, noise=1.0)
    assert list(prediction_strengths(vectors, range(2, 31), 0, DiffusionSettings())) == [2, 3, 4, 5]
    assert prediction_strengths(vectors[:30], range(2, 31), 0, DiffusionSettings()) == {}


def test_the_largest_strong_number_is_chosen_that_the_number_below_does_not_explain():
    assert choose_count({2: 0.9, 3: 0.5, 4: 0.98, 5: 0.8, 6: 0.6}, 0.75) == 4
    assert choose_count({4: 0.98, 5: 0.65, 6: 0.76, 7: 0.6}, 0.75) == 4


def test_the_largest_strong_number_is_chosen_else_the_strongest():
    assert choose_count({2: 0.9, 3: 0.5, 4: 0.8, 5: 0.3}, 0.75) == 4
    assert choose_count({2: 0.4, 3: 0.6, 4: 0.5}, 0.75) == 3
    assert choose_count({}, 0.75) == 1


def test_stability_is_1_if_subsamples_agree_and_near_0_for_random_labels():
    labels = np.arange(400) % 4
    vectors, generator = labels[:, None].astype(float), np.random.default_rng(0)
    assert stability(vectors, labels, lambda part: part[:, 0].astype(int), 0) == 1
    assert abs(stability(vectors, labels, lambda part: generator.integers(0, 4, len(part)), 0)) < 0.05
