"""Lines of scores over numbers of training rows."""

import pytest

from tests.recipes import recipe, recipe_values
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.plots.sweep import SCORE_BY_ROWS, score_by_rows, sweeps
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


# Of four items, how many each model answers.
RIGHT = {"dense": 4, "pruned": 0, "sft-4": 1, "sft-8": 2, "selfd-4": 2, "selfd-8": 3, "plain": 4}


def results_of(folder, arms, right, monkeypatch, kind="choice"):
    values = recipe_values(folder) | {"recover": arms}
    scores = {
        name: {"task": TaskScore("task", "acc", [1.0] * count + [0.0] * (4 - count), kind=kind)}
        for name, count in right.items()
    }
    monkeypatch.setattr(RunResults, "scores", scores)
    return RunResults(Run(parse_recipe(values, "test")))


@pytest.fixture
def results(tmp_path, monkeypatch):
    sweep = {"rows": [8, 4]}
    arms = {"plain": {}, "sft": {"data": "references", "sweep": sweep}, "selfd": {"sweep": sweep}}
    return results_of(tmp_path, arms, RIGHT, monkeypatch)


def test_each_sweep_is_a_line_over_its_rows(results):
    assert sweeps(results) == {"sft": {4: "sft-4", 8: "sft-8"}, "selfd": {4: "selfd-4", 8: "selfd-8"}}
    axes = score_by_rows(results).axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_xdata()) for line in lines] == [[4, 8], [4, 8]]
    assert [list(line.get_ydata()) for line in lines] == [[0.25, 0.5], [0.5, 0.75]]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(labels) == ["dense", "pruned", "selfd", "sft"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]


def test_a_sweep_that_is_evaluated_by_likelihood_alone_has_no_figure(tmp_path, monkeypatch):
    arms = {"sft": {"data": "references", "sweep": {"rows": [8, 4]}}}
    right = {"dense": 4, "sft-4": 1, "sft-8": 2}
    results = results_of(tmp_path, arms, right, monkeypatch, kind="likelihood")
    assert sweeps(results)
    assert not SCORE_BY_ROWS.is_available(results)


def test_without_a_sweep_of_two_evaluated_arms_nothing_is_shown(tmp_path, monkeypatch):
    assert not SCORE_BY_ROWS.is_available(RunResults(Run(recipe(tmp_path))))
    one = {"dense": 4, "pruned": 0, "sft-4": 1}
    results = results_of(tmp_path, {"sft": {"data": "references", "sweep": {"rows": [4, 8]}}}, one, monkeypatch)
    assert not SCORE_BY_ROWS.is_available(results)
    monkeypatch.undo()
    arms = {"sft-4": {"data": "references"}, "sft-8": {"data": "references"}}
    right = {"dense": 4, "sft-4": 1, "sft-8": 1}
    assert not SCORE_BY_ROWS.is_available(results_of(tmp_path, arms, right, monkeypatch)), "they train on all rows"
