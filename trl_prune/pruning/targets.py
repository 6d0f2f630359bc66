"""Sizes for a budget without a search: the named axes shrink by one common factor."""

from bisect import bisect_left
from collections.abc import Sequence

from trl_prune.errors import InputError
from trl_prune.pruning.budget import Budget, Costs
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS
from trl_prune.pruning.grid import check_grid, sizes_of, step_of


def shrunk_sizes(costs: Costs, budget: Budget, axes: Sequence[str], rounded: bool = True) -> dict[str, int]:
    """Return the largest sizes within a budget where every named axis keeps about the same share of its units.

    Args:
        costs: the dense model.
        budget: its upper bound counts.
        axes: those that shrink; the others stay whole, or follow where the format ties them.
        rounded: whether sizes are multiples that hardware likes; blocks and heads go one by one, heads one of each
            KV group.

    Returns:
        The size of every axis of the model.

    Raises:
        InputError: an axis that the model does not have, or a budget that even one unit an axis exceeds.
    """
    check_grid({axis: [1] for axis in axes}, costs)
    if GROUPS in axes:
        axes = [axis for axis in axes if axis != HEADS]  # a group takes its heads along
    steps = {axis: _step(axis, costs, rounded) for axis in axes}
    shares = {count * step / costs.sizes[axis] for axis, step in steps.items() for count in _counts(axis, step, costs)}
    factors = sorted({1.0, *shares}, reverse=True)
    place = bisect_left(factors, True, key=lambda factor: _cost(factor, steps, costs, budget) <= budget.high)
    if place == len(factors):
        least = _cost(factors[-1], steps, costs, budget)
        raise InputError(f"the budget is {budget.high:,.0f}, and the least of {', '.join(axes)} leaves {least:,}")
    return _sizes(factors[place], steps, costs)


def _step(axis: str, costs: Costs, rounded: bool) -> int:
    if axis in (HEADS, GROUPS) or (rounded and axis != LAYERS):
        return step_of(axis, costs)
    return costs.sizes[HEADS] if axis == HIDDEN and costs.heads_divide_hidden else 1


def _counts(axis: str, step: int, costs: Costs) -> range:
    return range(1, costs.sizes[axis] // step + 1)


def _sizes(factor: float, steps: dict[str, int], costs: Costs) -> dict[str, int]:
    # A factor is a quotient of whole numbers; the small excess keeps rounding from losing a step.
    choice = {
        axis: max(step, int(costs.sizes[axis] * factor / step + 1e-9) * step) if factor < 1 else costs.sizes[axis]
        for axis, step in steps.items()
    }
    if {HEADS, HIDDEN} <= choice.keys() and costs.heads_divide_hidden:
        choice[HIDDEN] -= choice[HIDDEN] % choice[HEADS]
    sizes = sizes_of(choice, costs)
    if sizes is None:
        raise InputError(f"sizes {choice} cannot be expressed: heads and hidden channels, or experts, disagree")
    return sizes


def _cost(factor: float, steps: dict[str, int], costs: Costs, budget: Budget) -> int:
    sizes = _sizes(factor, steps, costs)
    return int(budget.cost(costs, sizes, range(sizes[LAYERS])))
