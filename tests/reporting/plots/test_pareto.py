"""Recovery against cost, and the models that no other beats."""

from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recipes import recipe
from trl_prune.evaluation.comparison import compare_models
from trl_prune.evaluation.recovery import Estimate, TaskScore
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.model_points import ModelPoint, front, model_points
from trl_prune.reporting.plots.pareto import PARETO_PARAMETERS, PARETO_SPEED, draw_pareto, run_pareto
from trl_prune.reporting.plots.style import indexed_style


class Results:
    """What a run of three models left."""

    sizes = {"dense": SimpleNamespace(parameters=1000), "pruned": SimpleNamespace(parameters=800)}

    def __init__(self, folder, speed=None):
        self.run = SimpleNamespace(recipe=recipe(folder))
        self.speed = speed
        self.scores, self.compared = scores_and_comparisons()


def score(right, kind):
    return TaskScore("task", "acc", [1.0] * right + [0.0] * (100 - right), kind=kind)


@cache
def scores_and_comparisons():
    models = {"dense": (80, 60), "pruned": (40, 10), "sft": (60, 30)}
    scores = {name: {"a": score(a, "choice"), "b": score(b, "generation")} for name, (a, b) in models.items()}
    dense, pruned = scores["dense"], scores["pruned"]
    others = {name: compare_models(scores[name], dense, pruned, name=name) for name in ("pruned", "sft")}
    return scores, SimpleNamespace(comparisons=others)


def results(folder, speed=None):
    return Results(folder, speed)


def test_multiple_choice_and_generation_are_apart(tmp_path):
    points = {point.model: point for point in model_points(results(tmp_path), "run")}
    assert points["sft"].parameters == 800
    assert points["sft"].recovery["multiple choice"].value == pytest.approx(6 / 8)
    assert points["sft"].recovery["generation"].value == pytest.approx(3 / 6)
    assert points["dense"].speed is None
    assert points["dense"].run == "run"


def test_the_speed_of_a_small_model_is_its_gain_on_the_dense_one(tmp_path):
    dense = SimpleNamespace(decode=Interval(20.0, 18.0, 22.0))
    speed = SimpleNamespace(dense=dense, decode=Interval(1.2, 1.1, 1.3))
    points = {point.model: point for point in model_points(results(tmp_path, speed))}
    assert points["dense"].speed.value == 20.0
    assert points["sft"].speed == points["pruned"].speed
    assert points["sft"].speed.low == pytest.approx(22.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_a_point_is_on_the_front_if_no_other_is_as_cheap_and_as_good(points):
    def is_beaten(point):
        return any(other != point and other[0] <= point[0] and other[1] >= point[1] for other in points)

    assert front(points) == sorted({point for point in points if not is_beaten(point)})


def test_a_figure_has_axes_for_each_kind_and_models_of_one_size_do_not_hide_each_other(tmp_path):
    figure = run_pareto("parameters", results(tmp_path))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "multiple choice: % of the dense model",
        "generation: % of the dense model",
    ]
    places = [container.lines[0].get_xdata()[0] for container in figure.axes[0].containers]
    assert len(set(places)) == 3


def test_figures_are_shown_where_two_models_can_be_compared(tmp_path):
    assert PARETO_PARAMETERS.is_available(results(tmp_path))
    assert not PARETO_SPEED.is_available(results(tmp_path))


def test_points_can_be_numbered():
    points = [("a", ModelPoint("a", str(n), n * 10**6, None, {"generation": Estimate(0.5, 0.1)})) for n in (1, 2)]
    figure = draw_pareto(points, {"a": indexed_style(0)}, "parameters", lambda point: point.model)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]
