"""Oracles: a simulation of rounds, brute force over all outcomes, and the closed formulas."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.evaluation.speculative.prediction import (
    DepthCost,
    best,
    deepest_draft,
    expected_rounds,
    expected_tokens,
    speed_up,
    total,
)


def decode(accepted, draft_length):
    """Return calls, proposed and accepted counts of a text whose tokens are accepted or not."""
    position, calls, proposed, kept = 0, 0, [0] * draft_length, [0] * draft_length
    while position < len(accepted):
        calls += 1
        for index in range(draft_length):
            if position == len(accepted):
                break
            proposed[index] += 1
            position += 1
            if not accepted[position - 1]:
                break
            kept[index] += 1
        else:
            position += 1  # the target's own token after a draft that was accepted wholly
    return calls, proposed, kept


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 12))
def test_greedy_rounds_are_those_of_decoding(accepted, draft_length):
    rounds = expected_rounds([float(one) for one in accepted], draft_length)
    calls, proposed, kept = decode(accepted, draft_length)
    assert (rounds.tokens, rounds.calls) == (len(accepted), calls)
    assert (list(rounds.proposed), list(rounds.accepted)) == (proposed, kept)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.integers(1, 4))
def test_expected_rounds_are_the_mean_over_all_outcomes(rates, draft_length):
    calls, proposed = 0.0, [0.0] * draft_length
    for outcome in itertools.product([True, False], repeat=len(rates)):
        weight = 1.0
        for one, rate in zip(outcome, rates, strict=True):
            weight *= rate if one else 1 - rate
        found, counts, _ = decode(outcome, draft_length)
        calls += weight * found
        proposed = [sum_ + weight * count for sum_, count in zip(proposed, counts, strict=True)]
    rounds = expected_rounds(rates, draft_length)
    assert rounds.calls == pytest.approx(calls)
    assert list(rounds.proposed) == pytest.approx(proposed)


@pytest.mark.parametrize("draft_length", [1, 3, 8])
def test_long_texts_of_one_acceptance_have_the_formulas_tokens_a_call(draft_length):
    rounds = expected_rounds([0.7] * 4_000, draft_length)
    assert rounds.tokens_per_call == pytest.approx(expected_tokens(0.7, draft_length), rel=5e-3)
    assert rounds.acceptance == pytest.approx([0.7] * draft_length)


@given(st.floats(0, 0.999), st.integers(1, 20))
def test_expected_tokens_are_equation_1(alpha, draft_length):
    assert expected_tokens(alpha, draft_length) == pytest.approx((1 - alpha ** (draft_length + 1)) / (1 - alpha))


def test_all_accepted_tokens_give_the_bound():
    assert expected_tokens(1.0, 4) == 5
    assert speed_up(expected_tokens(1.0, 5), 5, 0.67) == pytest.approx(6 / 4.35)
    assert speed_up(3.0, 4, 0.25, verification=2.0) == pytest.approx(1.0)
    assert expected_rounds([1.0] * 10, 4).calls == 2


def test_sums_of_texts_weigh_tokens():
    generator = random.Random(0)
    texts = [[generator.random() for _ in range(length)] for length in (5, 11)]
    rounds = [expected_rounds(text, 3) for text in texts]
    both = total(rounds)
    assert both.tokens_per_call == pytest.approx(16 / (rounds[0].calls + rounds[1].calls))
    assert len(both.acceptance) == 3
    assert expected_rounds([0.0, 0.0], 3).acceptance == (0.0, None, None)


def test_the_best_length_is_the_shortest_of_equal_ones():
    assert best({4: 1.2, 1: 1.1, 2: 1.2}) == 2


def test_the_depth_that_pays_is_the_deepest():
    costs = DepthCost(30, block_parameters=106, head_parameters=28)
    assert costs.ratio(30) == 1
    assert costs.ratio(15) == pytest.approx((53 + 28) / 134)
    verification = dict.fromkeys((1, 2, 4, 8), 1.0)
    blocks = deepest_draft(0.8, costs, verification, wanted=1.2)
    speeds = {
        depth: max(speed_up(expected_tokens(0.8, g), g, costs.ratio(depth)) for g in verification)
        for depth in (blocks, blocks + 1)
    }
    assert speeds[blocks] >= 1.2 > speeds[blocks + 1]
    assert deepest_draft(0.3, costs, verification, wanted=1.2) is None
