"""Sizes of a pruned model without a search: given by axis, or by a budget that some axes share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, KV_HEADS, LAYERS
from trl_prune.pruning.keep import Keep, check_axis
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.shapes import complete_sizes, first_units, heads_per_group
from trl_prune.pruning.sizes.shrinking import shrunk_sizes


@dataclass(frozen=True)
class SizeTarget:
    """How small the pruned model must be: sizes of some axes, or a budget.

    Attributes:
        sizes: kept units by axis; an axis that is left out keeps its dense size or follows where the format ties it.
        budget: the largest cost, in place of sizes.
        axes: for a budget, the axes that shrink, by about the same share.
        rounded: for a budget, whether sizes are multiples that hardware prefers. Blocks and heads are removed one by
            one in either case, heads one of each KV group.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    budget: Budget | None = None
    axes: Sequence[str] = (LAYERS,)
    rounded: bool = True


@dataclass(frozen=True)
class TargetSizes:
    """The sizes that a target leads to.

    Attributes:
        cut: kept units of each axis that is cut.
        rounding: sizes before and after rounding to multiples, for each axis that it changed.
        keep: a plan of these sizes that keeps the first units of each axis, for counting before scores exist.
    """

    cut: dict[str, int]
    rounding: dict[str, tuple[int, int]]
    keep: Keep


def target_sizes(target: SizeTarget, costs: Costs) -> TargetSizes:
    """Return the sizes that a target leads to.

    Args:
        target: the sizes or the budget.
        costs: the dense model.

    Raises:
        InputError: an axis or a size that the model cannot have, or a budget below one unit of each axis.
    """
    for axis in target.sizes if target.budget is None else target.axes:
        check_axis(axis, costs.sizes, costs.config, costs.family)
    if target.budget is None:
        sizes = exact = _given_sizes(target.sizes, costs)
    else:
        sizes = exact = shrunk_sizes(costs, target.budget, target.axes, rounded=target.rounded)
        if target.rounded:
            exact = shrunk_sizes(costs, target.budget, target.axes, rounded=False)
    cut = {axis: size for axis, size in sizes.items() if size != costs.sizes[axis]}
    rounding = {axis: (exact[axis], size) for axis, size in sizes.items() if size != exact[axis]}
    return TargetSizes(cut, rounding, first_units(sizes, costs))


def _given_sizes(given: Mapping[str, int], costs: Costs) -> dict[str, int]:
    dense = costs.sizes
    for axis, size in given.items():
        if size > dense[axis]:
            raise InputError(f"{axis} is {size}; allowed: 1..{dense[axis]} (the model has {dense[axis]})")
    # Sizes that the format cannot express are returned all the same: the check of the plan gives the reason.
    sizes = complete_sizes(given, costs) or dense | given
    if HEADS in dense:
        heads_per_group(sizes[HEADS], sizes.get(KV_HEADS, 1), dense[HEADS] // dense.get(KV_HEADS, 1))
    return sizes
