"""Selections of blocks by scores, against brute force."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.pruning.choosing.blocks import (
    SELECTIONS,
    deepest,
    lowest_angular_block,
    lowest_block_influence,
    random_blocks,
)
from trl_prune.pruning.importance.layers import LayerScores


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


def test_neighbours_are_removed_up_to_a_fifth_of_the_blocks():
    scores = random_scores(10)
    assert SELECTIONS["auto"](scores, 2) == lowest_angular_block(scores, 2)
    assert SELECTIONS["auto"](scores, 3) == lowest_block_influence(scores, 3) != lowest_angular_block(scores, 3)


def test_deepest_keeps_the_last():
    assert deepest(random_scores(), 2) == [3, 4]
    assert deepest(random_scores(), 5) == [0, 1, 2, 3, 4]


def test_random_blocks_follow_the_seed():
    assert random_blocks(random_scores(), 3, 1) == random_blocks(random_scores(), 3, 1)
    assert len({tuple(random_blocks(random_scores(), 3, seed)) for seed in range(20)}) > 5
