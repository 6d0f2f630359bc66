"""The pruned model is timed against the dense one once, and again only for other models."""

from dataclasses import asdict

import pytest

from tests.recipes import recipe_values
from trl_prune.evaluation.speed import Speed, SpeedComparison
from trl_prune.evaluation.timing import Interval
from trl_prune.recipe import parse_recipe
from trl_prune.runs import speed as speed_module
from trl_prune.runs.context import Run
from trl_prune.runs.speed import SPEED, compare_with_dense_speed
from trl_prune.stages import evaluate


GAIN = Interval(1.18, 1.16, 1.2)
COMPARISON = SpeedComparison(Speed(GAIN, GAIN, 8, None), Speed(GAIN, GAIN, 6, None), GAIN, GAIN)


def run_with(folder, seconds):
    values = recipe_values(folder)
    values["evaluate"]["speed_seconds"] = seconds
    return Run(parse_recipe(values, "test"))


@pytest.fixture
def timed(monkeypatch):
    """The seconds that each measurement was given, and the hash of the pruned model."""
    calls, pruned = [], {"hash": "one"}
    monkeypatch.setattr(Run, "load", lambda self, name: name)
    monkeypatch.setattr(Run, "model_hash", lambda self, name: pruned["hash"])

    def compare(dense, small, seconds):
        assert (dense, small) == ("dense", "pruned")
        calls.append(seconds)
        return COMPARISON

    monkeypatch.setattr(speed_module, "compare_speed", compare)
    return calls, pruned


def test_models_are_timed_once(tmp_path, timed):
    calls, pruned = timed
    for _ in range(2):
        found = compare_with_dense_speed(run_with(tmp_path, 5), lambda: "pruned", tmp_path)
        assert SpeedComparison.from_dict(found) == COMPARISON
        assert found == asdict(COMPARISON)
    assert calls == [5]
    pruned["hash"] = "another"
    compare_with_dense_speed(run_with(tmp_path, 5), lambda: "pruned", tmp_path)
    assert calls == [5, 5]


def test_no_seconds_time_nothing_and_load_nothing(tmp_path, timed):
    assert compare_with_dense_speed(run_with(tmp_path, 0), lambda: pytest.fail("loaded"), tmp_path) is None
    assert not (tmp_path / SPEED).exists()


def test_other_models_do_not_depend_on_how_long_the_pruned_one_is_timed(tmp_path):
    short, long = run_with(tmp_path, 1), run_with(tmp_path, 2)
    assert evaluate.settings(short, "dense") == evaluate.settings(long, "dense")
    assert evaluate.settings(short, "pruned") != evaluate.settings(long, "pruned")
