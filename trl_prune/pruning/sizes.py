"""Sizes that hardware likes: matrix units work in tiles, and a width between two of them pays for the larger one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trl_prune.pruning.families import HEADS, HIDDEN, NEURONS


Sizes = dict[str, int]
MULTIPLES: Mapping[str, int] = {HIDDEN: 64, NEURONS: 128}
# A model with an odd number of heads (SmolLM2 has 9) would have hardly any hidden size left to choose.
FEWEST_STEPS = 8


@dataclass(frozen=True)
class Rounded:
    """Sizes after rounding.

    Attributes:
        asked: the sizes before.
        sizes: the sizes after.
        before: parameters before.
        after: parameters after.
    """

    asked: Sizes
    sizes: Sizes
    before: int
    after: int

    @property
    def sentence(self) -> str:
        """What rounding changed, or nothing where it changed nothing."""
        changed = [
            f"{axis} {size:,} -> {self.sizes[axis]:,}" for axis, size in self.asked.items() if size != self.sizes[axis]
        ]
        if not changed:
            return ""
        share = (self.after - self.before) / self.before
        return f"rounded {', '.join(changed)}: {self.before:,} -> {self.after:,} parameters ({share:+.2%})"


def nearest_multiple(size: int, multiple: int, largest: int) -> int:
    """Return the multiple nearest to a size, of two the smaller, at least one and within the dense size.

    The dense size itself is left as it is, multiple or not.
    """
    if size >= largest:
        return largest
    up = -(-size // multiple) * multiple
    down = max(up - multiple, 0)
    choices = [choice for choice in (down, up) if 0 < choice <= largest]
    return min(choices, key=lambda choice: abs(choice - size)) if choices else size


def hidden_multiple(heads: int, dense: int, wanted: int = MULTIPLES[HIDDEN]) -> int:
    """Return a multiple for hidden sizes: of the heads, and of as high a power of two as leaves some choice.

    Llama's and several other configs refuse a hidden size that the heads do not divide, whatever `head_dim` says.
    """
    steps = [math.lcm(heads, 2**power) for power in range(int(math.log2(wanted)) + 1)]
    return max([step for step in steps if step * FEWEST_STEPS <= dense], default=heads)


def round_sizes(
    asked: Sizes, dense: Sizes, count: Callable[[Sizes], int], multiples: Mapping[str, int] = MULTIPLES
) -> Rounded:
    """Round sizes to multiples that hardware likes; hidden sizes also to multiples of the heads that stay.

    Args:
        asked: the wanted size of each cut axis.
        dense: the dense model's sizes.
        count: how many parameters a model of given sizes has.
        multiples: by axis; other axes stay as asked.
    """
    heads = asked.get(HEADS, dense[HEADS])
    multiples = dict(multiples) | {HIDDEN: hidden_multiple(heads, dense[HIDDEN], multiples.get(HIDDEN, 1))}
    sizes = {axis: nearest_multiple(size, multiples.get(axis, 1), dense[axis]) for axis, size in asked.items()}
    return Rounded(dict(asked), sizes, count(asked), count(sizes))
