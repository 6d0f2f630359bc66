"""The pruned model is timed against the dense one once, and again only for other models."""

from dataclasses import asdict, replace

import pytest
import torch

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


def test_what_was_timed_on_a_busy_machine_is_timed_again(tmp_path, timed, monkeypatch):
    busy = replace(COMPARISON, decode=Interval(1.18, 1.0, 1.4))
    with monkeypatch.context() as patch:
        patch.setattr(speed_module, "compare_speed", lambda *_: busy)
        found = compare_with_dense_speed(run_with(tmp_path, 5), lambda: "pruned", tmp_path)
    assert SpeedComparison.from_dict(found) == busy
    found = compare_with_dense_speed(run_with(tmp_path, 5), lambda: "pruned", tmp_path)
    assert SpeedComparison.from_dict(found) == COMPARISON
    assert timed[0] == [5]


@pytest.mark.parametrize("too_large", ["dense", "pruned"])
def test_a_device_without_room_for_both_models_leaves_a_warning_instead_of_a_speed(
    tmp_path, timed, monkeypatch, caplog, too_large
):
    def load(name):
        if name == too_large:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return name

    monkeypatch.setattr(Run, "load", lambda self, name: load(name))
    assert compare_with_dense_speed(run_with(tmp_path, 5), lambda: load("pruned"), tmp_path) is None
    assert [record.getMessage() for record in caplog.records] == [speed_module.OUT_OF_MEMORY]
    assert "evaluate.speed_seconds: 0" in speed_module.OUT_OF_MEMORY
    assert not (tmp_path / SPEED).exists()


def test_the_plan_says_that_the_pruned_model_is_timed_beside_the_dense_one(tmp_path):
    for name, seconds, is_timed in [("dense", 5, False), ("pruned", 5, True), ("pruned", 0, False)]:
        plan = evaluate.describe(run_with(tmp_path, seconds), name)
        assert plan.endswith("; timed beside the dense model") is is_timed


def test_no_seconds_time_nothing_and_load_nothing(tmp_path, timed):
    assert compare_with_dense_speed(run_with(tmp_path, 0), lambda: pytest.fail("loaded"), tmp_path) is None
    assert not (tmp_path / SPEED).exists()


def test_other_models_do_not_depend_on_how_long_the_pruned_one_is_timed(tmp_path):
    short, long = run_with(tmp_path, 1), run_with(tmp_path, 2)
    assert evaluate.settings(short, "dense") == evaluate.settings(long, "dense")
    assert evaluate.settings(short, "pruned") != evaluate.settings(long, "pruned")
