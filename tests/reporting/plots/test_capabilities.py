"""Which capabilities broke and which came back."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.recipes import recipe
from trl_prune.evaluation.comparison import compare_models
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.reporting.plots.capabilities import CAPABILITIES, capabilities, capability_scores


def score(share, capability, chance=0.25, kind="choice", metric="acc"):
    items = [1.0] * round(100 * share) + [0.0] * (100 - round(100 * share))
    return TaskScore("task", metric, items, chance, capability, kind=kind)


def scores_of(sums, first, second):
    """A task of one capability, two of another, and one that names none."""
    words = {"b": score(first, "words"), "c": score(second, "words")}
    return {"a": score(sums, "sums"), **words, "d": score(0.5, None)}


def results(tmp_path, marks=None, **scores):
    scores = {
        name: {task: replace(one, task=task) for task, one in by_task.items()} for name, by_task in scores.items()
    }
    others = {name: by_task for name, by_task in scores.items() if name != "dense"}
    comparisons = {name: compare_models(by_task, scores["dense"], marks=marks) for name, by_task in others.items()}
    return SimpleNamespace(
        scores=scores,
        marks=marks or {},
        compared=SimpleNamespace(comparisons=comparisons),
        run=SimpleNamespace(recipe=recipe(tmp_path)),
    )


@pytest.mark.slow
def test_what_pruning_cost_most_comes_first_with_what_brought_it_back(tmp_path):
    found = capabilities(
        results(
            tmp_path,
            dense={
                "a": score(0.80, "sums"),
                "b": score(0.90, "words"),
                "c": score(0.70, "words"),
                "d": score(0.5, None),
            },
            pruned={
                "a": score(0.75, "sums"),
                "b": score(0.40, "words"),
                "c": score(0.50, "words"),
                "d": score(0.5, None),
            },
            sft={
                "a": score(0.70, "sums"),
                "b": score(0.85, "words"),
                "c": score(0.50, "words"),
                "d": score(0.5, None),
            },
            selfd={
                "a": score(0.74, "sums"),
                "b": score(0.42, "words"),
                "c": score(0.50, "words"),
                "d": score(0.5, None),
            },
        )
    )
    assert [one.name for one in found] == ["words", "sums", "d"]
    words, sums, untouched = found
    assert words.scores["dense"].value == (0.9 + 0.7) / 2
    assert words.broke
    assert words.back == ["sft"]
    # 5 items lost and none gained: p = 2^-5 = 0.03, which Holm's method doubles, for two of the four tasks have less.
    assert not sums.broke
    assert sums.back == []
    assert not untouched.broke
    assert words.chance == 0.25


def test_tasks_that_say_nothing_neither_break_nor_come_back(tmp_path):
    dense, pruned = {"a": score(0.9, "sums")}, {"a": score(0.4, "sums")}
    assert capabilities(results(tmp_path, dense=dense, pruned=pruned, sft=dense))[0].broke
    (sums,) = capabilities(results(tmp_path, {"a": "at chance"}, dense=dense, pruned=pruned, sft=dense))
    assert not sums.broke
    assert sums.back == []


def test_perplexities_have_no_bar_and_capabilities_that_no_model_has_no_room(tmp_path):
    text = score(0.5, "text", kind="likelihood", metric="word_perplexity")
    scores = {"a": score(0.8, "sums"), "b": score(0.0, "proofs"), "c": text}
    run = results(tmp_path, dense=scores, pruned=scores)
    assert [one.name for one in capabilities(run)] == ["sums", "proofs"]
    axes = capability_scores(run).axes[0]
    assert len(axes.patches) == 2
    assert "All models score 0: proofs" in axes.get_xlabel()


def test_a_run_without_scores_has_no_figure(tmp_path):
    assert not CAPABILITIES.is_available(results(tmp_path))
