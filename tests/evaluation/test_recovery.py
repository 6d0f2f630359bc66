import numpy as np
import pytest

from trl_prune.evaluation.recovery import TaskScore, paired_difference, recovery, subset


def scores(means, items=400, chance=0.25, seed=0):
    """Items are answered right from the first on, so that models agree on which are easy."""
    return {
        task: TaskScore(task, "acc", [float(item < mean * items) for item in range(items)], chance, task, task == "a")
        for task, mean in means.items()
    }


DENSE = scores({"a": 0.8, "b": 0.6})
PRUNED = scores({"a": 0.4, "b": 0.3})
RECOVERED = scores({"a": 0.6, "b": 0.5})


def test_recovery_is_the_ratio_of_means():
    told = recovery(RECOVERED, DENSE, PRUNED)
    assert told.score.value == pytest.approx(0.55)
    assert told.recovery.value == pytest.approx(0.55 / 0.7)
    assert told.corrected.value == pytest.approx((0.55 - 0.25) / (0.7 - 0.25))
    assert told.gap_closed.value == pytest.approx((0.55 - 0.35) / (0.7 - 0.35))


def test_the_dense_model_recovers_all_without_error():
    told = recovery(DENSE, DENSE, PRUNED)
    assert (told.recovery.value, told.recovery.stderr) == (1.0, 0.0)
    assert (told.corrected.value, told.corrected.stderr) == (1.0, 0.0)
    assert told.gap_closed.value == pytest.approx(1.0)


def test_unknown_chance_and_no_pruned_model_leave_their_columns_out():
    unknown = {task: TaskScore(task, "acc", score.items) for task, score in DENSE.items()}
    told = recovery(unknown, unknown)
    assert told.corrected is None
    assert told.gap_closed is None


def test_bootstrap_error_agrees_with_the_formula():
    told = recovery(RECOVERED, DENSE)
    variances = [score.stderr**2 for score in RECOVERED.values()]
    assert told.score.stderr == pytest.approx(np.sqrt(sum(variances)) / 2, rel=0.08)


def test_pairing_makes_the_ratios_error_smaller_than_independent_items_would():
    told = recovery(RECOVERED, DENSE)
    relative = [estimate.stderr / estimate.value for estimate in (told.score, recovery(DENSE, DENSE).score)]
    assert told.recovery.stderr / told.recovery.value < np.hypot(*relative)


def test_paired_difference_and_its_error():
    generator = np.random.default_rng(0)
    one, other = generator.random(300), generator.random(300)
    told = paired_difference({"a": TaskScore("a", "acc", list(one))}, {"a": TaskScore("a", "acc", list(other))})
    assert told.value == pytest.approx((one - other).mean())
    assert told.stderr == pytest.approx(np.std(one - other, ddof=1) / np.sqrt(300))
    same = paired_difference(DENSE, DENSE)
    assert (same.value, same.stderr) == (0.0, 0.0)


def test_estimates_repeat():
    assert recovery(RECOVERED, DENSE, PRUNED, seed=3) == recovery(RECOVERED, DENSE, PRUNED, seed=3)


def test_subsets():
    assert list(subset(DENSE, True)) == ["a"]
    assert list(subset(DENSE, False)) == ["b"]


def test_zero_dense_score_gives_no_ratio():
    nothing = scores({"a": 0.0})
    assert np.isnan(recovery(nothing, nothing).recovery.value)
