"""Sizes for a budget without a search: the named axes shrink by one common factor."""

from bisect import bisect_left
from collections.abc import Sequence

from trl_prune.errors import InputError
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import check_grid, sizes_of, step_of


def shrunk_sizes(costs: Costs, budget: Budget, axes: Sequence[str], rounded: bool = True) -> dict[str, int]:
    """Return sizes within a budget where every named axis keeps about the same share, and none could keep a step more.

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
    factors = [factor for factor in factors if sizes_of(_choice(factor, steps, costs), costs) is not None]
    place = bisect_left(
        factors, True, key=lambda factor: _cost(_choice(factor, steps, costs), costs, budget) <= budget.high
    )
    if place == len(factors):
        least = _cost(_choice(factors[-1], steps, costs), costs, budget)
        raise InputError(f"the budget is {budget.high:,.0f}, and the least of {', '.join(axes)} leaves {least:,}")
    return _sizes(_filled(_choice(factors[place], steps, costs), steps, costs, budget), costs)


def _step(axis: str, costs: Costs, rounded: bool) -> int:
    if axis in (HEADS, GROUPS) or (rounded and axis != LAYERS):
        return step_of(axis, costs)
    return costs.sizes[HEADS] if axis == HIDDEN and costs.heads_divide_hidden else 1


def _counts(axis: str, step: int, costs: Costs) -> range:
    return range(1, costs.sizes[axis] // step + 1)


def _choice(factor: float, steps: dict[str, int], costs: Costs) -> dict[str, int]:
    """Return the sizes of the named axes at a common factor, rounded down to their steps."""
    # A factor is a quotient of whole numbers; the small excess keeps rounding from losing a step.
    choice = {
        axis: max(step, int(costs.sizes[axis] * factor / step + 1e-9) * step) if factor < 1 else costs.sizes[axis]
        for axis, step in steps.items()
    }
    if {HEADS, HIDDEN} <= choice.keys() and costs.heads_divide_hidden:
        choice[HIDDEN] -= choice[HIDDEN] % choice[HEADS]
    return choice


def _filled(choice: dict[str, int], steps: dict[str, int], costs: Costs, budget: Budget) -> dict[str, int]:
    """Return the choice with what rounding left of the budget spent: step by step on the axis that lost most."""
    while True:
        larger = [choice | {axis: min(choice[axis] + step, costs.sizes[axis])} for axis, step in steps.items()]
        fitting = [told for told in larger if told != choice and _fits(told, costs, budget)]
        if not fitting:
            return choice
        choice = min(fitting, key=lambda told: _grown_share(choice, told, costs))


def _grown_share(choice: dict[str, int], told: dict[str, int], costs: Costs) -> float:
    return next(choice[axis] / costs.sizes[axis] for axis in told if told[axis] != choice[axis])


def _fits(choice: dict[str, int], costs: Costs, budget: Budget) -> bool:
    return sizes_of(choice, costs) is not None and _cost(choice, costs, budget) <= budget.high


def _sizes(choice: dict[str, int], costs: Costs) -> dict[str, int]:
    sizes = sizes_of(choice, costs)
    if sizes is None:
        raise InputError(f"sizes {choice} cannot be expressed: heads and hidden channels, or experts, disagree")
    return sizes


def _cost(choice: dict[str, int], costs: Costs, budget: Budget) -> int:
    sizes = _sizes(choice, costs)
    return int(budget.cost(costs, sizes, range(sizes[LAYERS])))
