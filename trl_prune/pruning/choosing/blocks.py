"""Which decoder blocks go: by scores, at random, or by the measured effect of removing them."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.runs.ledger import Ledger


# The loss of the model without the given blocks.
Loss = Callable[[list[int]], float]


def lowest_angular_block(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the contiguous run of blocks whose input and output are nearest: `argmin_l d(l, l + n)` (2410.09982)."""
    distances: Tensor = scores.angular_distance().diagonal(offset=count)
    start = int(distances.argmin())
    return list(range(start, start + count))


def lowest_block_influence(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the blocks that each change the residual stream's direction least (2407.14679, section 2.2)."""
    return sorted(scores.block_influence().argsort()[:count].tolist())


def deepest(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the deepest blocks, but never the last: what a score has to beat."""
    last = scores.num_layers - 1
    return list(range(max(last - count, 0), last)) + [last] * (count > last)


def random_blocks(scores: LayerScores, count: int, seed: int = 0) -> list[int]:
    """Return blocks drawn at random."""
    drawn = torch.randperm(scores.num_layers, generator=torch.Generator().manual_seed(seed))
    return sorted(drawn[:count].tolist())


SELECTIONS: dict[str, Callable[..., list[int]]] = {
    "angular_distance": lowest_angular_block,
    "block_influence": lowest_block_influence,
    "deepest": deepest,
    "random": random_blocks,
}


def greedy_removal(loss_without: Loss, num_layers: int, done: list[int]) -> int:
    """Return the block to remove next: the one without which, beside those already removed, the loss is lowest.

    Args:
        loss_without: the loss of the model without the given blocks.
        num_layers: how many blocks the dense model has.
        done: the blocks already removed, in order.
    """
    left = [index for index in range(num_layers) if index not in done]
    return min(left, key=lambda index: loss_without([*done, index]))


def removed_greedily(loss_without: Loss, num_layers: int, count: int) -> list[int]:
    """Return blocks removed one after the other, each measured beside those already gone."""
    done: list[int] = []
    while len(done) < count:
        done.append(greedy_removal(loss_without, num_layers, done))
    return sorted(done)


def removed_singly(loss_without: Loss, num_layers: int, count: int) -> list[int]:
    """Return the blocks that each alone cost least: every block is measured once."""
    losses = [loss_without([index]) for index in range(num_layers)]
    return sorted(sorted(range(num_layers), key=losses.__getitem__)[:count])


def removed_contiguously(loss_without: Loss, num_layers: int, count: int) -> list[int]:
    """Return the run of blocks that costs least: every start is measured."""
    runs = [list(range(start, start + count)) for start in range(num_layers - count + 1)]
    return min(runs, key=loss_without)


REMOVALS: dict[str, Callable[[Loss, int, int], list[int]]] = {
    "single": removed_singly,
    "contiguous": removed_contiguously,
    "greedy": removed_greedily,
}


def cached_loss(loss_without: Loss, path: Path) -> Loss:
    """Return a loss that keeps each value in a JSON file, so that an interrupted search goes on where it was."""
    known = Ledger(path)

    def loss(removed: list[int]) -> float:
        key = ",".join(map(str, sorted(removed)))
        if key not in known:
            known[key] = loss_without(removed)
        return known[key]

    return loss
