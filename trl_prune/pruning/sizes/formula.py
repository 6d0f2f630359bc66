"""What all tensors of a model hold together, as a function of its axis sizes.

A tensor's length along each dimension is proportional to axis sizes, so what a model holds is a polynomial of them. It
is read once from the tensors' shapes and the family's row and then evaluated, for one size or for arrays of sizes; the
tests hold it against models counted on the meta device, for every family.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trl_prune.pruning.families import LAYERS, Family
from trl_prune.pruning.surgery.cut import block_of


# A number of units by axis; or an array of numbers, for many models at once.
Sizes = Mapping[str, int]
# For each dimension that can be cut, the axes it is made of.
Factors = tuple[tuple[str, ...], ...]
# A tensor's shape, and how much of what is counted it holds (parameters, or bytes).
Amounts = Mapping[str, tuple[tuple[int, ...], int]]


@dataclass(frozen=True)
class Formula:
    """What all tensors of a model hold together, as a polynomial of its axis sizes.

    Attributes:
        outside: coefficients of the tensors outside the blocks, by what they are proportional to.
        blocks: for each dense block, the same.
    """

    outside: Counter[Factors]
    blocks: tuple[Counter[Factors], ...]

    @classmethod
    def of(cls, amounts: Amounts, sizes: Sizes, family: Family) -> "Formula":
        """Return the formula of a dense model's tensors.

        Args:
            amounts: by name, each tensor's shape and what it holds.
            sizes: the dense model's axis sizes.
            family: its row.
        """
        outside: Counter[Factors] = Counter()
        blocks: list[Counter[Factors]] = [Counter() for _ in range(sizes[LAYERS])]
        for name, (shape, amount) in amounts.items():
            block = block_of(name, family)
            place = outside if block is None else blocks[int(block["index"])]
            place[_factors(name, shape, sizes, family)] += amount
        return cls(_coefficients(outside, sizes), tuple(_coefficients(block, sizes) for block in blocks))

    @cached_property
    def kinds(self) -> tuple[Counter[Factors], ...]:
        """The different blocks; one where all blocks are alike."""
        return tuple(block for place, block in enumerate(self.blocks) if block not in self.blocks[:place])

    def blocks_of_each_kind(self, layers: Iterable[int]) -> list[int]:
        """Return how many of the given dense blocks are of each kind."""
        kept = [self.kinds.index(self.blocks[layer]) for layer in layers]
        return [kept.count(kind) for kind in range(len(self.kinds))]

    def amount(self, sizes: Sizes, blocks: Sequence[int]) -> int:
        """Return what a model of these sizes holds.

        Args:
            sizes: its axis sizes, or arrays of them.
            blocks: how many of its blocks are of each kind, or arrays of that.
        """
        inside = (count * _value(kind, sizes) for kind, count in zip(self.kinds, blocks, strict=True))
        return _value(self.outside, sizes) + sum(inside)


def _factors(name: str, shape: Sequence[int], sizes: Sizes, family: Family) -> Factors:
    dims = family.axis_dims(name)[: len(shape)]
    # Where every unit has a tensor of its own, all of them together are proportional to the axis.
    numbered = [(axis,) for pattern, axis in family.numbered.items() if re.search(pattern, name)]
    return tuple(parts for parts in [*dims, *numbered] if any(axis in sizes for axis in parts))


def _coefficients(amounts: Counter[Factors], sizes: Sizes) -> Counter[Factors]:
    return Counter({factors: amount // math.prod(_lengths(factors, sizes)) for factors, amount in amounts.items()})


def _lengths(factors: Factors, sizes: Sizes) -> list[int]:
    return [sum(sizes[axis] for axis in parts) for parts in factors]


def _value(polynomial: Counter[Factors], sizes: Sizes) -> int:
    return sum(coefficient * math.prod(_lengths(factors, sizes)) for factors, coefficient in polynomial.items())
