import torch

from trl_prune.pruning.importance import LayerScores
from trl_prune.pruning.selection import SELECTIONS, greedy_removal, lowest_angular_block, lowest_block_influence


def scores(num_layers=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    cosine = torch.rand(num_layers + 1, num_layers + 1, generator=generator, dtype=torch.float64)
    return LayerScores(angle, cosine, positions=1)


def test_contiguous_block_is_the_argmin_over_starts():
    for seed in range(20):
        told = scores(seed=seed)
        for count in (1, 2, 3, 6):
            starts = range(6 - count + 1)
            best = min(starts, key=[told.angle[start, start + count].item() for start in starts].__getitem__)
            assert lowest_angular_block(told, count) == list(range(best, best + count))


def test_lowest_influence_picks_the_smallest_changes():
    told = scores()
    influence = (1 - told.cosine.diagonal(1)).tolist()
    assert lowest_block_influence(told, 2) == sorted(sorted(range(6), key=influence.__getitem__)[:2])


def test_every_selection_returns_sorted_distinct_blocks():
    for select in SELECTIONS.values():
        removed = select(scores(), 4)
        assert removed == sorted(set(removed))
        assert len(removed) == 4


def test_greedy_removal_takes_the_cheapest_given_what_is_gone():
    # Block 1 is cheapest at first; once it is gone, 2 becomes dear.
    def loss(removed):
        return sum({0: 5, 1: 1, 2: 2, 3: 3}[block] for block in removed) + 10 * ({1, 2} <= set(removed))

    first = greedy_removal(loss, 4, [])
    assert first == 1
    assert greedy_removal(loss, 4, [first]) == 3
