"""Oracles: counts and ratios by hand, the formula of pass@k by enumeration, and simulated models."""

from itertools import combinations

import numpy as np
import pytest

from trl_prune.evaluation.comparison.flips import flip_examples
from trl_prune.evaluation.comparison.models import (
    ALL,
    CHOICE,
    CONTINUATION,
    GENERATION,
    TELLING,
    compare_models,
    pass_at_k,
)
from trl_prune.evaluation.comparison.paired_tests import mcnemar, sign_flips
from trl_prune.evaluation.comparison.silent_tasks import silent_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import ItemText


def score(task, right, items=100, first=0, **others):
    """Return a score whose items from `first` on are right."""
    values = [float(first <= item < first + right) for item in range(items)]
    return TaskScore(task, "acc", values, **({"chance": 0.25, "kind": "choice", "capability": task} | others))


def generated(task, right, **others):
    return score(task, right, **({"chance": 0.0, "kind": "generation"} | others))


DENSE = {"a": score("a", 80), "b": score("b", 60), "g": generated("g", 50)}
MODEL = {"a": score("a", 70), "b": score("b", 60, first=5), "g": generated("g", 20)}
PRUNED = {"a": score("a", 40), "b": score("b", 30), "g": generated("g", 0)}


def test_multiple_choice_and_generation_are_apart():
    groups = compare_models(MODEL, DENSE, PRUNED).groups
    assert list(groups) == [ALL, CHOICE, GENERATION]
    assert groups[CHOICE].recovery.recovery.value == pytest.approx(1.3 / 1.4)
    assert groups[CHOICE].recovery.corrected.value == pytest.approx((0.65 - 0.25) / (0.7 - 0.25))
    assert groups[GENERATION].recovery.recovery.value == pytest.approx(0.4)
    assert groups[GENERATION].recovery.gap_closed.value == pytest.approx(0.4)
    assert groups[ALL].recovery.score.value == pytest.approx((0.7 + 0.6 + 0.2) / 3)


def test_flips_are_counted_in_both_directions_and_tested():
    a, b, g = compare_models(MODEL, DENSE).tasks
    assert (a.lost, a.gained, b.lost, b.gained) == (10, 0, 5, 5)
    assert b.difference.value == 0.0
    assert [a.p_value, b.p_value, g.p_value] == [mcnemar(10, 0), mcnemar(5, 5), mcnemar(30, 0)]
    assert [a.p_holm, g.p_holm] == pytest.approx([2 * mcnemar(10, 0), 3 * mcnemar(30, 0)])
    assert [a.is_worse, b.is_worse, g.is_worse] == [True, False, True]


def test_all_items_are_tested_together():
    group = compare_models(MODEL, DENSE).groups[ALL]
    assert (group.lost, group.gained, group.items, group.p_value) == (45, 5, 300, mcnemar(45, 5))


def test_tasks_that_say_nothing_are_marked_untested_and_left_out_of_means():
    dense = DENSE | {"chance": score("chance", 30), "zero": generated("zero", 0), "easy": score("easy", 99)}
    model = MODEL | {"chance": score("chance", 20), "zero": generated("zero", 2), "easy": score("easy", 98)}
    comparison = compare_models(model, dense)
    assert comparison.marks == {"chance": "at chance", "zero": "at chance", "easy": "at the ceiling"}
    assert comparison.groups[ALL].tasks == list(dense)
    assert comparison.groups[TELLING].tasks == ["a", "b", "g"]
    assert comparison.groups[CHOICE].tasks == ["a", "b"]
    by_task = {task.task: task for task in comparison.tasks}
    assert by_task["chance"].p_holm is None
    assert by_task["easy"].p_holm is not None


def test_a_loss_from_the_ceiling_says_much():
    dense, model = {"easy": score("easy", 100)}, {"easy": score("easy", 60)}
    assert silent_tasks(dense, {"model": model}) == {}


def test_a_perplexity_is_compared_by_its_ratio_and_is_in_no_mean():
    generator = np.random.default_rng(0)
    weights = list(generator.integers(10, 90, 200).astype(float))
    losses = generator.normal(3, 0.4, 200)
    others = {"kind": "likelihood", "higher_is_better": False, "weights": weights}
    text = TaskScore("w", "word_perplexity", list(losses), **others)
    worse = TaskScore("w", "word_perplexity", list(losses + 0.1 + generator.normal(0, 0.1, 200)), **others)
    comparison = compare_models(MODEL | {"w": worse}, DENSE | {"w": text})
    row = comparison.tasks[-1]
    assert row.recovery.value == pytest.approx(text.mean / worse.mean)
    assert row.recovery.value == pytest.approx(np.exp(-0.1), abs=0.02)
    assert (row.lost, row.corrected, row.mark) == (None, None, "")
    assert row.p_value == pytest.approx(1e-4)
    assert all("w" not in group.tasks for group in comparison.groups.values())


def test_right_continuations_are_in_the_mean_of_all_tasks_and_in_their_own():
    lambada = {"kind": "continuation", "chance": None}
    dense, model = (scores | {"l": score("l", right, **lambada)} for scores, right in ((DENSE, 50), (MODEL, 40)))
    groups = compare_models(model, dense).groups
    assert groups[ALL].tasks == ["a", "b", "g", "l"]
    assert groups[ALL].recovery.corrected is None
    assert groups[CONTINUATION].recovery.recovery.value == pytest.approx(0.8)
    assert groups[CHOICE].tasks == ["a", "b"]


def test_shares_of_right_answers_are_tested_by_sign_flips():
    generator = np.random.default_rng(0)
    dense, model = (TaskScore("m", "mc2", list(generator.random(50)), kind="choice") for _ in range(2))
    row = compare_models({"m": model}, {"m": dense}).tasks[0]
    assert row.p_value == sign_flips(np.asarray(dense.items) - np.asarray(model.items))
    assert row.detectable == pytest.approx(2.486 * row.difference.stderr, rel=1e-3)


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer():
    right = [3, 0, 1]
    of_k = TaskScore("g", "exact_match", [count / 5 for count in right], kind="generation", repeats=5)
    for k in (1, 2, 5):
        draws = [[min(one) < count for one in combinations(range(5), k)] for count in right]
        assert pass_at_k(of_k, k) == pytest.approx(np.mean([np.mean(one) for one in draws]))
    row = compare_models({"g": of_k}, {"g": of_k}).tasks[0]
    assert list(row.pass_at) == [1, 5]


def test_loops_are_counted_where_answers_are_generated():
    dense, model = generated("g", 50, loops=[0.0] * 100), generated("g", 20, loops=[1.0] * 25 + [0.0] * 75)
    assert compare_models({"g": model}, {"g": dense}).tasks[0].loops == {"dense": 0.0, "model": 0.25}
    assert compare_models(MODEL, DENSE).tasks[0].loops is None


def test_examples_of_flips_show_both_answers():
    keys = ["x", "y", "z"]
    dense, model = (TaskScore("t", "acc", items, doc_hashes=keys) for items in ([1.0, 1.0, 0.0], [0.0, 1.0, 1.0]))
    texts = [{key: ItemText(f"{key}?", "target", name + key) for key in keys} for name in ("model ", "dense ")]
    lost, gained = flip_examples(model, dense, *texts)
    assert (lost.direction, lost.question, lost.dense, lost.model) == ("lost", "x?", "dense x", "model x")
    assert (gained.direction, gained.question, gained.target) == ("gained", "z?", "target")


@pytest.mark.slow(minutes=4)
def test_the_interval_of_a_difference_covers_it_in_19_of_20_simulated_evaluations():
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(120):
        kinds = generator.choice(4, 80, p=[0.5, 0.2, 0.1, 0.2])  # both right, lost, gained, both wrong
        dense, model = (
            {"t": TaskScore("t", "acc", list(np.isin(kinds, right).astype(float)))} for right in ([0, 1], [0, 2])
        )
        difference = compare_models(model, dense).tasks[0].difference
        covered.append(difference.low <= -0.1 <= difference.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)
