"""Sizes for a budget without a search: the given axes shrink by one common factor."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS
from trl_prune.pruning.keep import expert_groups
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import size_multiple
from trl_prune.pruning.sizes.shapes import complete_sizes


def shrunk_sizes(costs: Costs, budget: Budget, axes: Sequence[str], rounded: bool = True) -> dict[str, int]:
    """Return sizes within a budget, where all given axes keep about the same share and none can take another step.

    Args:
        costs: the dense model.
        budget: its upper bound.
        axes: those that shrink; the others keep their dense size, or follow where the format ties them.
        rounded: whether sizes are multiples that hardware prefers.

    Returns:
        The size of every axis of the model.

    Raises:
        InputError: even one unit of each axis exceeds the budget.
    """
    steps = _steps(axes, costs, rounded)
    _, limit = budget.bounds(costs)
    shrinking = _Shrinking(costs, budget, limit, steps)
    return shrinking.complete(shrinking.grown(shrinking.largest_shared()))


def _steps(axes: Sequence[str], costs: Costs, rounded: bool) -> dict[str, int]:
    """Return the step of each axis; a KV group is removed with its heads, which then have no step of their own."""
    steps = {}
    for axis in axes:
        if axis in (HEADS, KV_HEADS) or (rounded and axis != LAYERS):
            steps[axis] = size_multiple(axis, costs)
        elif axis == EXPERTS:
            steps[axis] = expert_groups(costs.config)
        else:
            steps[axis] = costs.sizes[HEADS] if axis == HIDDEN and costs.heads_divide_hidden else 1
    if KV_HEADS in steps:
        steps.pop(HEADS, None)
    return steps


@dataclass(frozen=True)
class _Shrinking:
    """Axes that shrink in steps to a budget.

    Attributes:
        costs: the dense model.
        budget: what counts.
        limit: its upper bound.
        steps: the axes, and the multiples that their sizes are.
    """

    costs: Costs
    budget: Budget
    limit: float
    steps: Mapping[str, int]

    def largest_shared(self) -> dict[str, int]:
        """Return the sizes at the largest share, the same for all axes, that fits."""
        shares = {1.0}
        for axis, step in self.steps.items():
            size = self.costs.sizes[axis]
            shares |= {count * step / size for count in range(1, size // step + 1)}
        choices = [self.at_share(share) for share in sorted(shares, reverse=True)]
        choices = [sizes for sizes in choices if self.complete(sizes) is not None]
        index = bisect_left(choices, True, key=self.fits)
        if index == len(choices):
            raise InputError(
                f"the budget is {self.limit:,.0f}, and the smallest possible {', '.join(self.steps)} cost "
                f"{self.cost(choices[-1]):,}"
            )
        return choices[index]

    def at_share(self, share: float) -> dict[str, int]:
        """Return the sizes of the axes at a share of the dense ones, rounded down to their steps."""
        dense = self.costs.sizes
        if share == 1:
            sizes = {axis: dense[axis] for axis in self.steps}
        else:
            # A share is a quotient of integers; the small excess keeps rounding down from losing a step.
            steps = self.steps.items()
            sizes = {axis: max(step, int(dense[axis] * share / step + 1e-9) * step) for axis, step in steps}
        if {HEADS, HIDDEN} <= sizes.keys() and self.costs.heads_divide_hidden:
            sizes[HIDDEN] -= sizes[HIDDEN] % sizes[HEADS]
        return sizes

    def grown(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return sizes that use up the budget, step by step, always on the axis with the smallest share."""
        while growable := [axis for axis in self.steps if self._can_grow(sizes, axis)]:
            sizes = self._larger(sizes, min(growable, key=lambda axis: sizes[axis] / self.costs.sizes[axis]))
        return sizes

    def _can_grow(self, sizes: dict[str, int], axis: str) -> bool:
        larger = self._larger(sizes, axis)
        return larger != sizes and self.complete(larger) is not None and self.fits(larger)

    def _larger(self, sizes: dict[str, int], axis: str) -> dict[str, int]:
        return sizes | {axis: min(sizes[axis] + self.steps[axis], self.costs.sizes[axis])}

    def complete(self, sizes: dict[str, int]) -> dict[str, int] | None:
        """Return the sizes of all axes, or None where the format cannot express them."""
        return complete_sizes(sizes, self.costs)

    def fits(self, sizes: dict[str, int]) -> bool:
        """Return whether expressible sizes are within the budget."""
        return self.cost(sizes) <= self.limit

    def cost(self, sizes: dict[str, int]) -> int:
        """Return the cost of a model of expressible sizes; the first blocks stand for those that will be kept."""
        complete = self.complete(sizes)
        return int(self.budget.cost(self.costs, complete, range(complete[LAYERS])))
