"""Oracles: the ratios of means, and the formula of the standard error of a mean."""

import numpy as np
import pytest

from trl_prune.evaluation.recovery import TaskScore, paired_difference, recovery, subset


def scores(means, items=400, chance=0.25):
    """Return scores in which the first items are right, so that models agree on which items are easy."""
    return {
        task: TaskScore(task, "acc", [float(item < mean * items) for item in range(items)], chance, task)
        for task, mean in means.items()
    }


DENSE = scores({"a": 0.8, "b": 0.6})
PRUNED = scores({"a": 0.4, "b": 0.3})
RECOVERED = scores({"a": 0.6, "b": 0.5})


def test_recovery_is_the_ratio_of_means():
    result = recovery(RECOVERED, DENSE, PRUNED)
    assert result.score.value == pytest.approx(0.55)
    assert result.recovery.value == pytest.approx(0.55 / 0.7)
    assert result.corrected.value == pytest.approx((0.55 - 0.25) / (0.7 - 0.25))
    assert result.gap_closed.value == pytest.approx((0.55 - 0.35) / (0.7 - 0.35))


def test_the_dense_models_recovery_is_one_without_error():
    result = recovery(DENSE, DENSE, PRUNED)
    assert (result.recovery.value, result.recovery.stderr) == (1.0, 0.0)
    assert (result.corrected.value, result.corrected.stderr) == (1.0, 0.0)
    assert result.gap_closed.value == pytest.approx(1.0)


def test_unknown_chance_and_no_pruned_model_give_none():
    unknown = {task: TaskScore(task, "acc", score.items) for task, score in DENSE.items()}
    result = recovery(unknown, unknown)
    assert result.corrected is None
    assert result.gap_closed is None


def test_the_bootstrap_error_agrees_with_the_formula():
    result = recovery(RECOVERED, DENSE)
    variances = [score.stderr**2 for score in RECOVERED.values()]
    assert result.score.stderr == pytest.approx(np.sqrt(sum(variances)) / 2, rel=0.08)


def test_pairing_makes_the_error_of_the_ratio_smaller_than_independent_items_would():
    result = recovery(RECOVERED, DENSE)
    relative = [estimate.stderr / estimate.value for estimate in (result.score, recovery(DENSE, DENSE).score)]
    assert result.recovery.stderr / result.recovery.value < np.hypot(*relative)


def test_paired_difference_and_its_error():
    generator = np.random.default_rng(0)
    first, second = generator.random(300), generator.random(300)
    estimate = paired_difference({"a": TaskScore("a", "acc", list(first))}, {"a": TaskScore("a", "acc", list(second))})
    assert estimate.value == pytest.approx((first - second).mean())
    assert estimate.stderr == pytest.approx(np.std(first - second, ddof=1) / np.sqrt(300))
    same = paired_difference(DENSE, DENSE)
    assert (same.value, same.stderr) == (0.0, 0.0)


def test_the_error_of_a_score_is_lm_evals():
    from lm_eval.api.metrics import mean_stderr

    items = list(np.random.default_rng(0).random(50))
    assert TaskScore("a", "acc", items).stderr == pytest.approx(mean_stderr(items))
    same_weights = TaskScore("a", "acc", items, weights=[7.0] * 50)
    assert same_weights.stderr == pytest.approx(mean_stderr(items))
    assert np.isnan(TaskScore("a", "acc", [1.0]).stderr)


def test_a_perplexity_is_the_exponential_of_a_weighted_mean_and_its_error_follows():
    generator = np.random.default_rng(0)
    items, weights = generator.normal(3, 0.5, 4000), generator.integers(1, 50, 4000).astype(float)
    score = TaskScore("w", "word_perplexity", list(items), weights=list(weights), higher_is_better=False)
    assert score.mean == pytest.approx(np.exp((items * weights).sum() / weights.sum()))
    chosen = generator.integers(0, 4000, (1000, 4000))
    means = np.exp((items[chosen] * weights[chosen]).sum(1) / weights[chosen].sum(1))
    assert score.stderr == pytest.approx(means.std(), rel=0.1)


def test_estimates_are_reproducible():
    assert recovery(RECOVERED, DENSE, PRUNED, seed=3) == recovery(RECOVERED, DENSE, PRUNED, seed=3)


def test_subset_selects_tasks_by_their_capability():
    assert list(subset(DENSE, {"a", "other"}, inside=True)) == ["a"]
    assert list(subset(DENSE, {"a", "other"}, inside=False)) == ["b"]
    assert subset({"c": TaskScore("c", "acc", [1.0])}, set(), inside=False) == {}


def test_zero_dense_score_gives_no_ratio():
    zero = scores({"a": 0.0})
    assert np.isnan(recovery(zero, zero).recovery.value)
