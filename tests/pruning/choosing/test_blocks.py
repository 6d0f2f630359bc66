"""Selections and removals of blocks, against brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.pruning.choosing.blocks import (
    REMOVAL_STRATEGIES,
    SELECTIONS,
    cached_loss,
    deepest,
    greedy_removal,
    lowest_angular_block,
    lowest_block_influence,
    num_measurements,
    random_blocks,
)
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.runs.ledger import Ledger


def random_scores(num_layers=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    cosine = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    return LayerScores(angle, cosine, num_positions=1)


def test_contiguous_block_is_the_argmin_over_starts():
    for seed in range(20):
        scores = random_scores(seed=seed)
        for count in (1, 2, 3, 6):
            starts = range(6 - count + 1)
            best = min(starts, key=[scores.angle[start, start + count].item() for start in starts].__getitem__)
            assert lowest_angular_block(scores, count) == list(range(best, best + count))


def test_lowest_influence_picks_the_smallest_changes():
    scores = random_scores()
    influence = (1 - scores.cosine.diagonal(1)).tolist()
    assert lowest_block_influence(scores, 2) == sorted(sorted(range(6), key=influence.__getitem__)[:2])


@given(st.sampled_from(sorted(SELECTIONS)), st.integers(1, 6), st.integers(0, 9))
def test_every_selection_returns_sorted_distinct_blocks(name, count, seed):
    removed = SELECTIONS[name](random_scores(), count, seed)
    assert removed == sorted(set(removed))
    assert set(removed) <= set(range(6))
    assert len(removed) == count


def test_deepest_keeps_the_last():
    assert deepest(random_scores(), 2) == [3, 4]
    assert deepest(random_scores(), 5) == [0, 1, 2, 3, 4]


def test_random_blocks_follow_the_seed():
    assert random_blocks(random_scores(), 3, 1) == random_blocks(random_scores(), 3, 1)
    assert len({tuple(random_blocks(random_scores(), 3, seed)) for seed in range(20)}) > 5


# Block 1 is cheapest alone and 2 next; together they are expensive. 4 and 5 are cheap only as a run.
def loss(removed):
    alone = sum({0: 5, 1: 1, 2: 2, 3: 3, 4: 6, 5: 6}[block] for block in removed)
    return alone + 10 * ({1, 2} <= set(removed)) - 11 * ({4, 5} <= set(removed))


def test_greedy_removal_takes_the_cheapest_given_what_was_removed():
    assert greedy_removal(loss, 6, []) == 1
    assert greedy_removal(loss, 6, [1]) == 3


@pytest.mark.parametrize(("strategy", "removed"), [("single", [1, 2]), ("greedy", [1, 3]), ("contiguous", [4, 5])])
def test_removals_by_measured_effect(strategy, removed):
    assert REMOVAL_STRATEGIES[strategy](loss, 6, 2) == removed


@pytest.mark.parametrize("strategy", sorted(REMOVAL_STRATEGIES))
@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_number_of_measurements_is_known_before(strategy, count):
    measured = []
    REMOVAL_STRATEGIES[strategy](lambda removed: measured.append(removed) or loss(removed), 6, count)
    assert len(measured) == num_measurements(strategy, 6, count)


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=4, max_size=7), st.data())
def test_all_strategies_agree_where_effects_add_up_and_contiguous_is_the_best_run(effects, data):
    count = data.draw(st.integers(1, len(effects)))
    additive = lambda removed: sum(effects[block] for block in removed)  # noqa: E731
    best = min(additive(blocks) for blocks in combinations(range(len(effects)), count))
    for strategy in ("single", "greedy"):
        assert additive(REMOVAL_STRATEGIES[strategy](additive, len(effects), count)) == pytest.approx(best)
    run = REMOVAL_STRATEGIES["contiguous"](additive, len(effects), count)
    assert run == list(range(run[0], run[0] + count))
    starts = range(len(effects) - count + 1)
    assert all(additive(run) <= additive(range(start, start + count)) + 1e-9 for start in starts)


def test_a_stored_loss_resumes_after_an_interruption(tmp_path):
    measured, path = [], tmp_path / "losses.json"

    def counted(removed):
        measured.append(sorted(removed))
        if len(measured) == 8:
            raise KeyboardInterrupt
        return loss(removed)

    with pytest.raises(KeyboardInterrupt):
        REMOVAL_STRATEGIES["greedy"](cached_loss(counted, Ledger(path)), 6, 3)
    resumed = REMOVAL_STRATEGIES["greedy"](cached_loss(counted, Ledger(path)), 6, 3)
    assert resumed == REMOVAL_STRATEGIES["greedy"](loss, 6, 3)
    assert len(measured) == 6 + 5 + 4 + 1  # only the interrupted one was measured twice
    assert measured.count(measured[7]) == 2
