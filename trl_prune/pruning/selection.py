"""Which blocks go: from scores, or by trying."""

from collections.abc import Callable

from torch import Tensor

from trl_prune.pruning.importance import LayerScores


def lowest_angular_block(scores: LayerScores, count: int) -> list[int]:
    """Return the contiguous run of blocks whose input and output are nearest: `argmin_l d(l, l + n)` (2410.09982)."""
    distances: Tensor = scores.angular_distance().diagonal(offset=count)
    start = int(distances.argmin())
    return list(range(start, start + count))


def lowest_block_influence(scores: LayerScores, count: int) -> list[int]:
    """Return the blocks that each change the residual stream's direction least (2407.14679, section 2.2)."""
    return sorted(scores.block_influence().argsort()[:count].tolist())


SELECTIONS: dict[str, Callable[[LayerScores, int], list[int]]] = {
    "angular_distance": lowest_angular_block,
    "block_influence": lowest_block_influence,
}


def greedy_removal(loss_without: Callable[[list[int]], float], num_layers: int, done: list[int]) -> int:
    """Return the block to remove next: the one without which, beside those already removed, the loss is lowest.

    Args:
        loss_without: the loss of the model without the given blocks.
        num_layers: how many blocks the dense model has.
        done: the blocks already removed, in order.
    """
    left = [index for index in range(num_layers) if index not in done]
    return min(left, key=lambda index: loss_without([*done, index]))
