"""What the Pareto figures show of each model."""

from types import SimpleNamespace

import pytest

from trl_prune.evaluation.speed import Speed, SpeedComparison
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.model_points import decode_speeds


def test_the_pruned_models_speed_has_the_interval_of_the_gain():
    dense, small = (Speed(Interval(9.0, 8.0, 10.0), Interval(value, 1.0, 99.0), 8, None) for value in (25.0, 29.0))
    gain = Interval(1.18, 1.16, 1.2)
    found = decode_speeds(SimpleNamespace(speed=SpeedComparison(dense, small, gain, gain)))
    assert found["dense"] == Interval(25.0, 25.0, 25.0)
    pruned = found["pruned"]
    assert (pruned.value, pruned.low, pruned.high) == pytest.approx((29.5, 29.0, 30.0))


def test_a_run_that_timed_nothing_has_no_speeds():
    assert decode_speeds(SimpleNamespace(speed=None)) == {}
