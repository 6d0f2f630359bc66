"""The sentence says what was found, and what could not be."""

import pytest

from tests.evaluation.comparison.test_models import DENSE, MODEL, generated, score
from trl_prune.evaluation.comparison.models import compare_models
from trl_prune.evaluation.comparison.paired_tests import detectable_loss
from trl_prune.evaluation.comparison.verdict import verdict
from trl_prune.evaluation.timing import Interval


def test_a_loss_is_named():
    comparison = compare_models(MODEL, DENSE, name="sft")
    assert verdict(comparison, 0.842, Interval(1.18, 1.15, 1.21)) == (
        "sft has 84 % of the parameters, decodes 1.18x as fast [1.15, 1.21], keeps 93 % of multiple choice [87, 99] "
        "(89 % of what is above chance) and 40 % of generation [27, 54], and is significantly worse than the dense "
        "model on 2 of 3 tasks (Holm, 5 %): a, g."
    )


def test_a_speed_that_cannot_be_told_from_the_dense_models_is_said_so():
    comparison = compare_models(MODEL, DENSE, name="sft")
    assert "decodes no faster or slower than can be told (1.02x [0.97, 1.06])" in verdict(
        comparison, speed=Interval(1.02, 0.97, 1.06)
    )


def test_a_speed_that_was_timed_beside_other_work_is_said_so():
    comparison = compare_models(MODEL, DENSE, name="sft")
    sentence = verdict(comparison, speed=Interval(1.91, 1.45, 2.36))
    assert "decodes 1.91x as fast [1.45, 2.36] (timed on a busy machine, so take it with care)" in sentence


def test_a_speed_of_too_few_repeats_has_no_interval():
    speed = Interval(1.18, float("nan"), float("nan"), repeats=3)
    sentence = verdict(compare_models(MODEL, DENSE, name="sft"), speed=speed)
    assert "sft decodes about 1.18x (timed 3 times only) as fast, keeps" in sentence


def test_what_the_items_cannot_show_is_said():
    dense = {name: score(name, 50, items=60) for name in "ab"}
    same = verdict(compare_models({name: score(name, 49, items=60) for name in "ab"}, dense, name="sft"))
    assert same.endswith(
        "and is significantly worse on none of the 2 tested tasks (Holm, 5 %), where losses below 13 points would "
        "not be seen with so few items."
    )
    assert detectable_loss(60, 1, level=0.025) == pytest.approx(0.13, abs=0.005)
    few = {"a": score("a", 4, items=4)}
    assert verdict(compare_models({"a": score("a", 3, items=4)}, few, name="sft")).endswith(
        "is significantly worse on no tested task (Holm, 5 %), where some have too few items to show any loss."
    )


def test_many_small_losses_count_together():
    dense = {name: score(name, 50, items=60) for name in "abcdef"}
    model = {name: score(name, 48, items=60) for name in "abcdef"}
    assert verdict(compare_models(model, dense, name="sft")).endswith(
        "and is significantly worse than the dense model over all 360 items (p = 0.00024), though on none of the 6 "
        "tested tasks by itself (Holm, 5 %)."
    )


def test_tasks_that_say_nothing_are_counted_with_their_reason():
    dense = DENSE | {"g": generated("g", 0), "chance": score("chance", 30), "easy": score("easy", 99)}
    model = dense | {"a": score("a", 70)}
    assert verdict(compare_models(model, dense, name="sft")).endswith(
        "on 1 of 3 tasks (Holm, 5 %): a; 2 of 5 tasks say nothing, as the dense model is at chance; 1 of 5 tasks says "
        "nothing, as every model is at the ceiling; generation cannot be judged."
    )


@pytest.mark.parametrize("dense", [{"a": score("a", 25)}, {"g": generated("g", 0)}])
def test_a_dense_model_that_guesses_says_nothing(dense):
    comparison = compare_models(dense, dense, name="sft")
    assert verdict(comparison) == "sft cannot be judged: the dense model is at chance on every task."
