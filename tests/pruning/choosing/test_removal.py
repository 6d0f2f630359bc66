"""Strategies that search for blocks, against every choice of a few blocks."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.pruning.choosing.removal import EVOLUTION_ROUNDS, REMOVAL_STRATEGIES, SearchOptions


STRATEGIES = sorted(REMOVAL_STRATEGIES)


# Block 1 is cheapest alone and 2 next; together they are expensive. 4 and 5 are cheap only as a run.
def loss(removed):
    alone = sum({0: 5, 1: 1, 2: 2, 3: 3, 4: 6, 5: 6}[block] for block in removed)
    return alone + 10 * ({1, 2} <= set(removed)) - 11 * ({4, 5} <= set(removed))


def losses_of(function, asked=None):
    def losses(choices, share=1.0):
        choices = list(choices)
        if asked is not None:
            asked.extend((choice, share) for choice in choices)
        return [function(choice) for choice in choices]

    return losses


def search(strategy, function, num_layers, count, **options):
    return REMOVAL_STRATEGIES[strategy](losses_of(function), num_layers, count, SearchOptions(**options))


def random_loss(seed):
    """Return a loss whose values for different choices have nothing to do with each other."""
    return lambda removed: hash((seed, *sorted(removed))) % 10**6


@pytest.mark.parametrize(
    ("strategy", "removed"),
    [("single", (1, 2)), ("greedy", (1, 3)), ("contiguous", (4, 5)), ("beam", (4, 5)), ("swap", (4, 5))],
)
def test_removals_by_measured_effect(strategy, removed):
    if strategy == "swap":  # removing one and putting one back, or the reverse, cannot leave 1 and 3 here
        removed = (1, 3)
    assert search(strategy, loss, 6, 2, beam_width=6) == removed


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_full_beam_finds_the_best_of_all_choices(seed, count):
    function = random_loss(seed)
    best = min(combinations(range(6), count), key=function)
    assert search("beam", function, 6, count, beam_width=20) == best


@pytest.mark.parametrize("seed", range(20))
def test_swaps_are_never_worse_than_the_greedy_choice_and_sometimes_better(seed):
    function = random_loss(seed)
    greedy, swapped = (search(strategy, function, 7, 3) for strategy in ("greedy", "swap"))
    assert function(swapped) <= function(greedy)


def test_swaps_improve_some_greedy_choices():
    better = [
        function(search("swap", function, 7, 3)) < function(search("greedy", function, 7, 3))
        for function in map(random_loss, range(20))
    ]
    assert any(better)


def test_a_swap_ends_where_no_exchange_of_the_best_block_helps():
    function = random_loss(3)
    choice = search("swap", function, 7, 3)
    more = min((tuple(sorted({*choice, layer})) for layer in range(7) if layer not in choice), key=function)
    assert function(choice) <= min(function(tuple(set(more) - {layer})) for layer in more)
    fewer = min((tuple(set(choice) - {layer}) for layer in choice), key=function)
    assert function(choice) <= min(function((*fewer, layer)) for layer in range(7) if layer not in fewer)


def test_evolution_follows_its_seed_and_reaches_the_best_of_a_small_space():
    function = random_loss(0)
    first, again = (search("evolutionary", function, 8, 3, seed=1, generations=3) for _ in range(2))
    assert first == again
    assert len({search("evolutionary", function, 8, 3, seed=seed, generations=1) for seed in range(8)}) > 1
    best = min(combinations(range(8), 3), key=function)
    assert search("evolutionary", function, 8, 3, generations=40) == best


def test_evolution_measures_many_mutants_on_few_texts_and_the_best_on_all():
    asked = []
    REMOVAL_STRATEGIES["evolutionary"](losses_of(loss, asked), 6, 2, SearchOptions(generations=2))
    few, some, all_texts = (share for _, share in EVOLUTION_ROUNDS)
    by_share = {share: [choice for choice, of in asked if of == share] for share in (few, some, all_texts)}
    assert len(by_share[few]) > len(by_share[some]) > len(by_share[all_texts])
    assert set(by_share[some]) <= set(by_share[few])
    assert len(set(by_share[all_texts])) <= 3  # the first parent and one mutant of each generation


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_every_strategy_returns_as_many_blocks_in_order(strategy, count):
    removed = search(strategy, loss, 6, count)
    assert removed == tuple(sorted(set(removed)))
    assert len(removed) == count


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=4, max_size=7), st.data())
def test_all_strategies_agree_where_effects_add_up_and_contiguous_is_the_best_run(effects, data):
    count = data.draw(st.integers(1, len(effects)))
    additive = lambda removed: sum(effects[block] for block in removed)  # noqa: E731
    best = min(additive(blocks) for blocks in combinations(range(len(effects)), count))
    for strategy in ("single", "greedy", "beam", "swap", "evolutionary"):
        assert additive(search(strategy, additive, len(effects), count)) == pytest.approx(best)
    run = search("contiguous", additive, len(effects), count)
    assert run == tuple(range(run[0], run[0] + count))
    starts = range(len(effects) - count + 1)
    assert all(additive(run) <= additive(range(start, start + count)) + 1e-9 for start in starts)
