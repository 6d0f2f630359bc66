"""Which decoder blocks to remove: by scores, at random, or by the measured effect of removing them."""

from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor

from trl_prune.pruning.importance.layers import LayerScores


# The loss of the model without the given blocks.
RemovalLoss = Callable[[list[int]], float]


def lowest_angular_block(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the contiguous blocks whose input and output are closest: `argmin_l d(l, l + n)` (2410.09982)."""
    distances: Tensor = scores.angular_distance().diagonal(offset=count)
    start = int(distances.argmin())
    return list(range(start, start + count))


def lowest_block_influence(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the blocks that each change the residual stream's direction least (2407.14679, section 2.2)."""
    return sorted(scores.block_influence().argsort()[:count].tolist())


def deepest(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the deepest blocks except the last one: a baseline for scores."""
    last = scores.num_layers - 1
    return list(range(max(last - count, 0), last)) + [last] * (count > last)


def random_blocks(scores: LayerScores, count: int, seed: int = 0) -> list[int]:
    """Return blocks drawn at random: a baseline for scores."""
    drawn = torch.randperm(scores.num_layers, generator=torch.Generator().manual_seed(seed))
    return sorted(drawn[:count].tolist())


SELECTIONS: dict[str, Callable[..., list[int]]] = {
    "angular_distance": lowest_angular_block,
    "block_influence": lowest_block_influence,
    "deepest": deepest,
    "random": random_blocks,
}


def greedy_removal(loss_without: RemovalLoss, num_layers: int, removed: list[int]) -> int:
    """Return the block to remove next: the one whose removal gives the lowest loss.

    Args:
        loss_without: the loss of the model without the given blocks.
        num_layers: number of blocks of the dense model.
        removed: the blocks already removed, in order.
    """
    kept = [layer for layer in range(num_layers) if layer not in removed]
    return min(kept, key=lambda layer: loss_without([*removed, layer]))


def removed_greedily(loss_without: RemovalLoss, num_layers: int, count: int) -> list[int]:
    """Return blocks removed one after the other; each is measured without the blocks removed before."""
    removed: list[int] = []
    while len(removed) < count:
        removed.append(greedy_removal(loss_without, num_layers, removed))
    return sorted(removed)


def removed_singly(loss_without: RemovalLoss, num_layers: int, count: int) -> list[int]:
    """Return the blocks whose removal, each by itself, costs least; every block is measured once."""
    losses = [loss_without([layer]) for layer in range(num_layers)]
    return sorted(sorted(range(num_layers), key=losses.__getitem__)[:count])


def removed_contiguously(loss_without: RemovalLoss, num_layers: int, count: int) -> list[int]:
    """Return the contiguous blocks whose removal costs least; every start is measured."""
    runs = [list(range(start, start + count)) for start in range(num_layers - count + 1)]
    return min(runs, key=loss_without)


REMOVAL_STRATEGIES: dict[str, Callable[[RemovalLoss, int, int], list[int]]] = {
    "single": removed_singly,
    "contiguous": removed_contiguously,
    "greedy": removed_greedily,
}


def num_measurements(strategy: str, num_layers: int, count: int) -> int:
    """Return how many losses a removal strategy measures."""
    measurements = {
        "single": num_layers,
        "contiguous": num_layers - count + 1,
        "greedy": sum(num_layers - removed for removed in range(count)),
    }
    return measurements[strategy]


def cached_loss(loss_without: RemovalLoss, store: MutableMapping[str, float]) -> RemovalLoss:
    """Return a loss that stores every value and does not measure it again, so that an interrupted search resumes.

    Args:
        loss_without: the loss of the model without the given blocks.
        store: values by the removed blocks, such as `3,7`.
    """

    def loss(removed: list[int]) -> float:
        key = ",".join(map(str, sorted(removed)))
        if key not in store:
            store[key] = loss_without(removed)
        return store[key]

    return loss
