"""The total size of a model's tensors as a polynomial of its axis sizes.

A tensor's length along each dimension is proportional to axis sizes. The polynomial is read once from the dense
tensors' shapes and the family's row, then evaluated for one model or, with arrays, for many models at once. The tests
compare it with models counted on the meta device, for every family.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trl_prune.pruning.families import LAYERS, Family
from trl_prune.pruning.surgery.cut import match_block


# Number of units by axis; or an array of numbers by axis, for many models at once.
Sizes = Mapping[str, int]
# For each dimension that can be cut, the axes it is made of.
Factors = tuple[tuple[str, ...], ...]
# By tensor name: its shape, and its amount of what is counted (parameters or bytes).
Amounts = Mapping[str, tuple[tuple[int, ...], int]]


@dataclass(frozen=True)
class Formula:
    """The total amount (parameters or bytes) of a model's tensors, as a polynomial of its axis sizes.

    Attributes:
        outside: coefficient of each product of axes, for the tensors outside the decoder blocks.
        blocks: the same for each dense block.
    """

    outside: Counter[Factors]
    blocks: tuple[Counter[Factors], ...]

    @classmethod
    def of(cls, amounts: Amounts, sizes: Sizes, family: Family) -> "Formula":
        """Return the formula of a dense model's tensors.

        Args:
            amounts: shape and amount of each tensor, by name.
            sizes: the dense model's axis sizes.
            family: its row.
        """
        outside: Counter[Factors] = Counter()
        blocks: list[Counter[Factors]] = [Counter() for _ in range(sizes[LAYERS])]
        for name, (shape, amount) in amounts.items():
            block = match_block(name, family)
            if block is not None and int(block["index"]) >= len(blocks):
                continue  # of a block that the config does not count, which is not written
            polynomial = outside if block is None else blocks[int(block["index"])]
            polynomial[_factors(name, shape, sizes, family)] += amount
        return cls(_coefficients(outside, sizes), tuple(_coefficients(block, sizes) for block in blocks))

    @cached_property
    def distinct_blocks(self) -> tuple[Counter[Factors], ...]:
        """The blocks without repeats; a single one where all blocks have the same tensors."""
        return tuple(block for index, block in enumerate(self.blocks) if block not in self.blocks[:index])

    def amount(self, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return the total amount of a model of these sizes.

        Args:
            sizes: its axis sizes, or arrays of them.
            layers: the dense blocks that it keeps.
        """
        sizes = {**sizes, LAYERS: len(layers)}
        kept = [self.distinct_blocks.index(self.blocks[layer]) for layer in layers]
        inside = sum(kept.count(index) * _value(block, sizes) for index, block in enumerate(self.distinct_blocks))
        return _value(self.outside, sizes) + inside


def _factors(name: str, shape: Sequence[int], sizes: Sizes, family: Family) -> Factors:
    dims = family.dim_axes(name)[: len(shape)]
    # Where each unit has a tensor of its own, their total is proportional to the axis.
    numbered = [(axis,) for pattern, axis in family.indexed_names.items() if re.search(pattern, name)]
    return tuple(axes for axes in [*dims, *numbered] if any(axis in sizes for axis in axes))


def _coefficients(amounts: Counter[Factors], sizes: Sizes) -> Counter[Factors]:
    return Counter({factors: amount // math.prod(_lengths(factors, sizes)) for factors, amount in amounts.items()})


def _lengths(factors: Factors, sizes: Sizes) -> list[int]:
    return [sum(sizes.get(axis, 1) for axis in axes) for axes in factors]


def _value(polynomial: Counter[Factors], sizes: Sizes) -> int:
    return sum(coefficient * math.prod(_lengths(factors, sizes)) for factors, coefficient in polynomial.items())
