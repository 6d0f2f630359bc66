"""Measured losses: stored, counted and equal however often they are asked for."""

import math

import pytest

from trl_prune.pruning.choosing.losses import MeasuredLosses, expected_cost
from trl_prune.pruning.choosing.removal import REMOVAL_STRATEGIES, SearchOptions
from trl_prune.pruning.choosing.shared_runs import num_block_runs
from trl_prune.runs.ledger import Ledger


NUM_LAYERS = 6


class Interrupted(Exception):
    """Stands for the kill of the process."""


class Texts:
    """Parts of 1, 2, 3, ... positions, on which each choice has a loss of its own."""

    at_once = 100

    def __init__(self, parts=20, interrupted_at=math.inf):
        self.tokens, self.measured, self._limit = [10] * parts, [], interrupted_at

    def sums(self, part, choices):
        if len(self.measured) >= self._limit:
            raise Interrupted
        self.measured += [(part, choice) for choice in choices]
        return [((part + 1) * self.loss(choice, part), part + 1) for choice in choices]

    def loss(self, choice, part):
        return hash((part, *choice)) % 1000

    def block_runs(self, choices):
        return num_block_runs(choices, NUM_LAYERS)


def test_losses_are_means_over_the_positions_of_all_parts():
    texts = Texts(parts=3)
    (loss,) = MeasuredLosses(texts)([(2, 1)])
    assert loss == pytest.approx(sum((part + 1) * texts.loss((1, 2), part) for part in range(3)) / 6)


@pytest.mark.parametrize(("share", "parts"), [(1 / 16, [0, 16]), (1 / 4, [0, 4, 8, 12, 16]), (1.0, list(range(20)))])
def test_shares_take_every_so_many_parts_and_larger_ones_contain_smaller_ones(share, parts):
    texts = Texts()
    MeasuredLosses(texts)([(1,)], share)
    assert [part for part, _ in texts.measured] == parts


def test_nothing_is_measured_twice():
    texts = Texts()
    losses = MeasuredLosses(texts)
    first = losses([(1,), (2,), (1,)], 1 / 4)
    assert losses([(2,), (1,)], 1 / 4) == [first[1], first[0]]
    losses([(1,)])
    assert len(texts.measured) == len(set(texts.measured)) == 2 * 5 + 15


def test_a_loss_that_is_no_number_is_infinite():
    texts = Texts(parts=2)
    texts.loss = lambda choice, part: math.nan if choice == (1,) else 1.0
    assert MeasuredLosses(texts)([(1,), (2,)]) == [math.inf, 1.0]


@pytest.mark.parametrize("strategy", sorted(REMOVAL_STRATEGIES))
def test_an_interrupted_search_goes_on_and_ends_with_the_same_blocks_and_cost(strategy, tmp_path):
    options, path = SearchOptions(generations=3 if strategy == "evolutionary" else None), tmp_path / "sums.json"
    whole = MeasuredLosses(Texts(parts=4))
    removed = REMOVAL_STRATEGIES[strategy](whole, NUM_LAYERS, 3, options)
    interrupted, resumed = Texts(4, interrupted_at=9), Texts(4)
    with pytest.raises(Interrupted):
        REMOVAL_STRATEGIES[strategy](MeasuredLosses(interrupted, Ledger(path)), NUM_LAYERS, 3, options)
    again = MeasuredLosses(resumed, Ledger(path))
    assert REMOVAL_STRATEGIES[strategy](again, NUM_LAYERS, 3, options) == removed
    assert again.cost == whole.cost
    assert not set(interrupted.measured) & set(resumed.measured)
    assert len(interrupted.measured) + len(resumed.measured) == len(whole.effect.measured)


def test_choices_are_stored_in_groups():
    texts, sizes = Texts(parts=1), []
    texts.at_once = 2
    sums = texts.sums
    texts.sums = lambda part, choices: sizes.append(len(choices)) or sums(part, choices)
    MeasuredLosses(texts)([(layer,) for layer in range(5)])
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("strategy", ["single", "contiguous", "greedy"])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_cost_of_simple_strategies_is_known_before(strategy, count):
    losses = MeasuredLosses(Texts(parts=4))
    REMOVAL_STRATEGIES[strategy](losses, NUM_LAYERS, count, SearchOptions())
    expected = expected_cost(strategy, NUM_LAYERS, count, 4, SearchOptions())
    assert losses.cost.choices == expected.choices
    assert losses.cost.block_tokens == 10 * expected.block_tokens
    assert losses.cost.dense_passes(NUM_LAYERS) == pytest.approx(expected.dense_passes(NUM_LAYERS))


def test_a_greedy_search_costs_about_half_of_its_choices_in_passes_because_they_share_their_first_blocks():
    cost = expected_cost("greedy", 30, 6, 8, SearchOptions())
    assert cost.choices == sum(range(25, 31))
    assert cost.dense_passes(30) == pytest.approx(sum(m * (m - 1) / 2 + m - 1 for m in range(25, 31)) / 30)


def test_a_generation_count_of_the_evolutionary_search_follows_the_greedy_one():
    greedy, evolutionary = (expected_cost(name, 30, 6, 16, SearchOptions()) for name in ("greedy", "evolutionary"))
    assert 0.5 < evolutionary.dense_passes(30) / greedy.dense_passes(30) < 3
