import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.evaluation import timing
from trl_prune.evaluation.timing import (
    MAX_REPEATS,
    MIN_REPEATS,
    Interval,
    interleaved_seconds,
    median_interval,
    repeat_until_narrow,
    speed_up,
    timed_repeats,
)


def named_calls(names, log):
    return {name: lambda name=name: log.append(name) for name in names}


def test_the_order_turns_round_every_second_repeat():
    log = []
    seconds = interleaved_seconds(named_calls("AB", log), repeats=4)
    assert "".join(log) == "AB" + "ABBAABBA"  # the first two are the warm-up
    assert {name: len(values) for name, values in seconds.items()} == {"A": 4, "B": 4}


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_every_call_runs_once_a_repeat(count, repeats, warm_up):
    log = []
    seconds = interleaved_seconds(named_calls(range(count), log), repeats, warm_up)
    assert sorted(log) == sorted(list(range(count)) * (repeats + warm_up))
    assert all(len(values) == repeats for values in seconds.values())


def test_a_call_that_sleeps_takes_the_time_it_sleeps():
    repeats = timed_repeats({"sleeps": lambda: time.sleep(0.02), "idle": lambda: None}, warm_up=0)
    for seconds in islice(repeats, 2):
        assert seconds["sleeps"] >= 0.02


def test_the_gain_does_not_see_a_load_that_slows_both_calls():
    load = np.array([1.0, 3.0, 1.2, 7.0, 1.1, 2.0])
    gain = speed_up(1.18 * load, load)
    assert (gain.value, gain.low, gain.high) == pytest.approx((1.18, 1.18, 1.18))
    assert not gain.is_busy


def test_the_interval_holds_the_true_gain_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    true, trials = 1.2, 60
    noise = np.exp(generator.normal(scale=0.05, size=(trials, 2, 12)))
    intervals = [speed_up(true * base, other) for base, other in noise]
    inside = np.mean([interval.low <= true <= interval.high for interval in intervals])
    assert 0.85 < inside <= 1.0


def test_a_disturbed_measurement_says_so():
    assert speed_up([1.0, 2.0, 1.0, 1.7, 1.0, 2.0], [1.0, 1.0, 1.4, 1.0, 1.0, 1.0]).is_busy
    assert str(Interval(1.1834, 1.16, 1.2)) == "1.18x [1.16, 1.20]"


@pytest.mark.parametrize(("repeats", "words"), [(1, "once"), (3, "3 times"), (5, "5 times")])
def test_too_few_repeats_have_no_interval_and_are_counted(repeats, words):
    gain = speed_up([2.0] * repeats, [1.0] * repeats)
    assert (gain.value, gain.repeats, gain.is_known, gain.is_busy) == (2.0, repeats, False, False)
    assert np.isnan([gain.low, gain.high]).all()
    assert str(gain) == f"2.00x (timed {words} only)"
    assert str(Interval(2.0, gain.low, gain.high)) == "2.00x (too few repeats for an interval)"


def test_the_least_number_of_repeats_is_the_smallest_whose_extremes_enclose_the_median_often_enough():
    def covered(repeats):
        return 1 - 2 * 0.5**repeats  # all values above the median, or all below it

    assert covered(MIN_REPEATS) >= 0.95 > covered(MIN_REPEATS - 1)
    assert speed_up(np.arange(1.0, MIN_REPEATS + 1), np.ones(MIN_REPEATS)).is_known


def test_the_interval_is_the_same_on_every_call():
    values = np.random.default_rng(1).normal(10, 1, 9)
    assert median_interval(values) == median_interval(values)


def fake_clock(monkeypatch, *seconds_of_repeat):
    """Let the n-th timed pair of calls take the n-th seconds, again and again; the calls are untimed at first."""
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call(name):
        count = [-1]  # the warm-up

        def run():
            pair = seconds_of_repeat[count[0] % len(seconds_of_repeat)]
            now[0] += pair[name]
            count[0] += 1

        return run

    return call("base"), call("other")


def test_equal_repeats_stop_at_the_least_number(monkeypatch):
    timed = repeat_until_narrow(*fake_clock(monkeypatch, {"base": 1.2, "other": 1.0}), seconds=1000)
    assert timed == {
        "base": pytest.approx([1.2] * MIN_REPEATS),
        "other": pytest.approx([1.0] * MIN_REPEATS),
    }


def test_unequal_repeats_go_on_to_the_largest_number(monkeypatch):
    repeats = [{"base": 1.0 + 0.3 * (number % 3), "other": 1.0} for number in range(MAX_REPEATS)]
    timed = repeat_until_narrow(*fake_clock(monkeypatch, *repeats), seconds=1000)
    assert len(timed["base"]) == len(timed["other"]) == MAX_REPEATS


def test_the_time_limit_ends_the_repeats_after_two_at_least(monkeypatch):
    slow = {"base": 50.0, "other": 50.0}
    assert len(repeat_until_narrow(*fake_clock(monkeypatch, slow), seconds=1)["base"]) == 2
    assert len(repeat_until_narrow(*fake_clock(monkeypatch, slow), seconds=350)["base"]) == 3
