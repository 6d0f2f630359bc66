"""The logits of one or two models at many positions: tile by tile, and in the cache block by block.

Products with the heads are fastest on large tiles, elementwise operations in the cache, as in `distill_head`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from trl_prune.losses.distill_head import (
    BLOCK_BYTES,
    MIN_ROWS,
    TILE_BYTES,
    rows_of_size,
    split_rows,
    write_logits,
)
from trl_prune.losses.targets import HeadTarget


def logits_in_blocks(sides: Sequence[HeadTarget], sizes: Sequence[int]) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield blocks of positions with each model's logits there, `(n, size)` float32, which may be overwritten.

    Args:
        sides: the final states of each model at the same positions, and its head; all on one device.
        sizes: how many of each model's first ids are computed.
    """
    count, device = len(sides[0].hidden), sides[0].head.weight.device
    vocab_size = max(len(side.head.weight) for side in sides)
    tile_rows = rows_of_size(TILE_BYTES, device, vocab_size, MIN_ROWS)
    block_rows = rows_of_size(BLOCK_BYTES, device, vocab_size)
    buffers = [torch.empty(min(tile_rows, count), size, device=device) for size in sizes]
    for tile in split_rows(slice(0, count), tile_rows):
        logits = [_logits(side, tile, buffer) for side, buffer in zip(sides, buffers, strict=True)]
        for block in split_rows(tile, block_rows):
            in_tile = slice(block.start - tile.start, block.stop - tile.start)
            yield block, [part[in_tile] for part in logits]


def _logits(side: HeadTarget, tile: slice, buffer: Tensor) -> Tensor:
    logits = buffer[: tile.stop - tile.start]
    write_logits(side.hidden[tile].to(side.head.weight.dtype), side.head, logits)
    return logits
