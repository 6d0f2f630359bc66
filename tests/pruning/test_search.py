"""Successive halving: who is trained further, what is measured again after a kill, how stable the ranking is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.pruning.search import HalvingResult, halving_schedule, pareto_front, ranked, successive_halving


LOSS = {"a": [5.0, 4.0, 3.9], "b": [6.0, 3.0, 2.9], "c": [7.0, 3.5, 3.0], "d": [9.0, 1.0, 1.0]}


def measured(name: str, rung: int) -> float:
    return LOSS[name][rung]


def test_the_better_part_is_trained_further():
    dropped = []
    result = successive_halving(list(LOSS), [3, 2], measured, {}, lambda names: dropped.append(list(names)))
    assert [list(scores) for scores in result.rungs] == [["a", "b", "c", "d"], ["a", "b", "c"], ["b", "c"]]
    assert dropped == [["d"], ["a"]]
    assert result.ranking == ["b", "c", "a", "d"]
    assert result.winner == "b"


def test_without_rungs_the_zero_shot_score_decides():
    assert successive_halving(list(LOSS), [], measured, {}).winner == "a"


def test_a_single_survivor_is_not_compared_further():
    assert [len(scores) for scores in successive_halving(list(LOSS), [4, 1, 1], measured, {}).rungs] == [4, 4, 1]
    assert [len(scores) for scores in successive_halving(["a"], [1, 1], measured, {}).rungs] == [1]


def test_stored_scores_are_not_measured_again():
    class Stopped(Exception):
        pass

    calls, store = [], {}

    def fragile(name: str, rung: int) -> float:
        if len(calls) == 6:
            raise Stopped
        calls.append((name, rung))
        return measured(name, rung)

    with pytest.raises(Stopped):
        successive_halving(list(LOSS), [3, 2], fragile, store)
    done = list(calls)
    result = successive_halving(list(LOSS), [3, 2], lambda *run: calls.append(run) or measured(*run), store)
    assert result == successive_halving(list(LOSS), [3, 2], measured, {})
    assert len(calls) == len(set(calls)) == 9
    assert calls[:6] == done


def test_nan_is_the_worst_score():
    assert ranked({"a": math.nan, "b": 2.0, "c": 1.0}) == ["c", "b", "a"]


def test_stability_against_hand_counted_correlations():
    stability = successive_halving(list(LOSS), [4, 3], measured, {}).stability()
    # From (5, 6, 7, 9) to (4, 3, 3.5, 1): of six pairs only (b, c) stays in order.
    assert stability[0] == {"candidates": 4, "kendall": pytest.approx(-4 / 6), "spearman": pytest.approx(-0.8)}
    assert stability[1] == {"candidates": 3, "kendall": pytest.approx(1), "spearman": pytest.approx(1)}
    assert HalvingResult([{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}]).stability()[0]["kendall"] is None
    assert HalvingResult([{"a": 1.0}]).stability() == []


def test_halving():
    assert halving_schedule(10, 4) == [10, 5, 3, 2]
    assert halving_schedule(2, 3) == [2, 2, 2]
    assert halving_schedule(1, 2) == []
    assert halving_schedule(8, 3, factor=4) == [8, 2, 2]


POINTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1
)


@given(POINTS)
def test_no_point_dominates_the_front_and_the_front_dominates_the_rest(points):
    front = pareto_front(points)

    def beats(first: str, second: str) -> bool:
        pairs = zip(points[first], points[second], strict=True)
        return points[first] != points[second] and all(left <= right for left, right in pairs)

    assert not any(beats(name, best) for name in points for best in front)
    for name in points.keys() - set(front):
        assert any(beats(best, name) or points[best] == points[name] for best in front)
