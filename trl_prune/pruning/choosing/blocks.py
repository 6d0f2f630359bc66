"""Which decoder blocks to remove by scores or at random; by the measured effect: `choosing.removal`."""

from collections.abc import Callable

import torch
from torch import Tensor

from trl_prune.pruning.importance.layers import LayerScores


# The share of the blocks up to which `auto` removes a contiguous run.
CONTIGUOUS_SHARE = 0.2


def lowest_angular_block(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the contiguous blocks whose input and output are closest: `argmin_l d(l, l + n)` (2410.09982)."""
    distances: Tensor = scores.angular_distance().diagonal(offset=count)
    start = int(distances.argmin())
    return list(range(start, start + count))


def lowest_block_influence(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return the blocks that each change the residual stream's direction least (2407.14679, section 2.2)."""
    return sorted(scores.block_influence().argsort()[:count].tolist())


def lowest_by_count(scores: LayerScores, count: int, _seed: int = 0) -> list[int]:
    """Return contiguous blocks by angular distance, or by block influence beyond `CONTIGUOUS_SHARE` of the blocks.

    Where more are removed every contiguous run is poor: at 9 of SmolLM2's 30 blocks, with a linear map in their place,
    perplexity on WikiText-2 is 207 by angular distance and 75 by block influence (benchmarks/README.md).
    """
    select = lowest_angular_block if count <= CONTIGUOUS_SHARE * scores.num_layers else lowest_block_influence
    return select(scores, count)


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
    "auto": lowest_by_count,
}
