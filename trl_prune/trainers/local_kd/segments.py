"""Which blocks a cut touched: runs of the student's blocks, and the dense model's states that they are to give."""

from collections.abc import Sequence
from dataclasses import dataclass

from trl_prune.errors import InputError


@dataclass(frozen=True)
class Segment:
    """A run of the student's blocks that are trained together.

    Attributes:
        blocks: their indices in the student, neighbours.
        source: the dense block whose output the first of them gets; None for the embeddings.
        targets: for each of them the dense block whose output it is to give.
    """

    blocks: range
    source: int | None
    targets: tuple[int, ...]


def cut_segments(keep: Sequence[int], num_blocks: int, after: int) -> list[Segment]:
    """Return the runs of blocks next to the removed ones.

    A block is to give what the dense model gives the next kept block, so that the block before a cut also does what
    the removed ones did. Runs that touch are one.

    Args:
        keep: the dense model's blocks that the student has, in order.
        num_blocks: the dense model's number of blocks.
        after: how many blocks behind a cut belong to it, with the one before it.

    Raises:
        InputError: no block was removed.
    """
    bounds = [-1, *keep, num_blocks]
    # Position `p` is the cut before the student's block `p`.
    cuts = [position for position in range(len(keep) + 1) if bounds[position + 1] > bounds[position] + 1]
    # Where the first blocks were removed there is none before the cut.
    around = (range(cut - 1, cut + after) if cut else range(max(after, 1)) for cut in cuts)
    trained = sorted({block for blocks in around for block in blocks if block < len(keep)})
    if not trained:
        raise InputError("local distillation trains the blocks next to removed ones, and none was removed")
    starts = [block for block in trained if block - 1 not in trained]
    ends = [block + 1 for block in trained if block + 1 not in trained]
    return [_segment(range(start, end), keep, num_blocks) for start, end in zip(starts, ends, strict=True)]


def _segment(blocks: range, keep: Sequence[int], num_blocks: int) -> Segment:
    following = [*keep[1:], num_blocks]
    source = keep[blocks.start] - 1 if blocks.start else None
    return Segment(blocks, source, tuple(following[block] - 1 for block in blocks))
