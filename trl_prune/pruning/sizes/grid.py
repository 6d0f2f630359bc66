"""Sizes to choose among: a grid over the axes, what of it the family's format can express, what of that fits a budget.

The search space of Minitron (2407.14679, section 4.3 and Table 9): every combination of a few sizes an axis whose cost
is within the budget.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trl_prune.errors import InputError
from trl_prune.pruning.families import AXES, EXPERTS, GROUPS, HEADS, HIDDEN, LAYERS, LETTERS, NEURONS, Family
from trl_prune.pruning.keep import PER_LAYER, Keep, check_axis
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.formula import Sizes


Grid = Mapping[str, Sequence[float]]
# In a grid, in the place of neurons: how many times the hidden channels they are (the paper's MLP factor).
MLP_RATIO = "mlp_ratio"
# Which dense blocks stay, for a number of blocks.
LayersOf = Callable[[int], Sequence[int]]
# Sizes are multiples of a sixteenth of the axis, rounded down to a power of two, and of these at most: what tensor
# cores and tensor parallelism like.
LARGEST_STEPS = {HIDDEN: 256, NEURONS: 512, LAYERS: 2, EXPERTS: 8}
STEPS_AN_AXIS = 16
# The widest cuts of an axis; deeper ones want more training than a search gives.
MAX_WIDTH, MAX_DEPTH = 0.4, 0.2
AUTOMATIC = (LAYERS, HIDDEN, NEURONS, HEADS, EXPERTS)
NAMES = {LAYERS: "L"} | {axis: letter for letter, axis in LETTERS.items()}


@dataclass(frozen=True)
class Candidate:
    """A size of model that fits the budget.

    Attributes:
        sizes: how many units of each axis of the family it has.
        parameters: every weight once, tied ones too.
        cost: what the budget counts: parameters or bytes.
    """

    sizes: Sizes
    parameters: int
    cost: int

    @property
    def name(self) -> str:
        """A short name, such as `L24-H512-F1536-A9-K3`."""
        return "-".join(f"{NAMES[axis]}{size}" for axis, size in self.sizes.items())


def automatic_grid(
    costs: Costs, axes: Sequence[str] = AUTOMATIC, max_width: float = MAX_WIDTH, max_depth: float = MAX_DEPTH
) -> dict[str, list[int]]:
    """Return hardware-friendly sizes of each axis, from the dense one down.

    Args:
        costs: the dense model.
        axes: those to cut, where the model has them; KV heads, which Minitron leaves alone, only where named.
        max_width: the largest share of an axis other than layers that may go.
        max_depth: the largest share of the layers that may go.
    """
    sizes, config = costs.sizes, costs.config
    quantised = getattr(config, "quantization_config", None) is not None
    able = sizes.keys() & ({LAYERS, EXPERTS} if quantised else set(AXES))
    return {
        axis: _steps(sizes[axis], step_of(axis, costs), max_depth if axis == LAYERS else max_width)
        for axis in axes
        if axis in able and not _follows(axis, costs.family, axes)
    }


def _follows(axis: str, family: Family, axes: Sequence[str]) -> bool:
    # Where heads and hidden channels can only go together, the heads say how many channels there are.
    return axis == HIDDEN and not family.head_dim_free and HEADS in axes


def step_of(axis: str, costs: Costs) -> int:
    """Return the multiple that sizes of an axis are best."""
    sizes = costs.sizes
    if axis == HEADS:
        return sizes.get(GROUPS, 1) if sizes.get(GROUPS) != sizes[HEADS] else 1
    if axis == GROUPS:
        return 1
    power = 1 << max(0, (sizes[axis] // STEPS_AN_AXIS).bit_length() - 1)
    step = min(LARGEST_STEPS[axis], power)
    return hidden_step(step, sizes[HEADS]) if axis == HIDDEN and costs.heads_divide_hidden else step


def hidden_step(step: int, heads: int) -> int:
    """Return the multiple of a number of heads with the most factors of two that is at most a quarter above a step."""
    multiples = [math.lcm(heads, 1 << power) for power in range(step.bit_length())]
    return max([multiple for multiple in multiples if 4 * multiple <= 5 * step], default=heads)


def _steps(size: int, step: int, largest_cut: float) -> list[int]:
    least = max(1, size * (1 - largest_cut))
    return sorted({size, *(cut for cut in range(step, size, step) if cut >= least)}, reverse=True)


def check_grid(grid: Grid, costs: Costs) -> None:
    """Check that a grid names axes of the model and sizes it can have.

    Raises:
        InputError: an axis the family has not, or a size that is none.
    """
    if MLP_RATIO in grid and NEURONS in grid:
        raise InputError(f"the grid has both {MLP_RATIO} and {NEURONS}, of which one follows from the other")
    for name, choices in grid.items():
        axis = NEURONS if name == MLP_RATIO else name
        check_axis(axis, costs.sizes, costs.config, costs.family)
        if not choices:
            raise InputError(f"the grid has no size of {name}; leave the axis out to keep it whole")
        most = costs.sizes[axis] if name == axis else costs.sizes[axis] / min(grid.get(HIDDEN, [costs.sizes[HIDDEN]]))
        for size in choices:
            if not 0 < size <= most or (name == axis and size != int(size)):
                whole = "whole numbers" if name == axis else "more than 0"
                raise InputError(f"the grid has {name} {size}; allowed: {whole}, at most {most:g}")


def sizes_of(choice: Mapping[str, float], costs: Costs) -> dict[str, int] | None:
    """Return the sizes of all axes where some are chosen, or None where the format cannot express them.

    An axis left out stays whole or follows: KV heads follow heads where each head has its own, heads follow KV heads,
    and heads and hidden channels follow each other where the format ties them.
    """
    dense = costs.sizes
    sizes = dense | {HEADS: _heads(choice, costs)}
    if dense.get(GROUPS) == dense[HEADS]:
        sizes[GROUPS] = sizes[HEADS]
    if not costs.family.head_dim_free:
        sizes[HIDDEN] = sizes[HEADS] * (dense[HIDDEN] // dense[HEADS])
    sizes |= {axis: size for axis, size in choice.items() if axis != MLP_RATIO}
    if MLP_RATIO in choice:
        sizes[NEURONS] = round(choice[MLP_RATIO] * sizes[HIDDEN])
    return sizes if _is_expressible(sizes, costs) else None


def _heads(choice: Mapping[str, float], costs: Costs) -> int:
    dense = costs.sizes
    if HEADS not in choice and GROUPS in choice:
        return choice[GROUPS] * (dense[HEADS] // dense[GROUPS])
    if HEADS not in choice and HIDDEN in choice and not costs.family.head_dim_free:
        return choice[HIDDEN] * dense[HEADS] // dense[HIDDEN]
    return choice.get(HEADS, dense[HEADS])


def _is_expressible(sizes: Sizes, costs: Costs) -> bool:
    dense, config = costs.sizes, costs.config
    heads, groups = sizes[HEADS], sizes.get(GROUPS, 1)
    even = heads % groups == 0 and heads // groups <= dense[HEADS] // dense.get(GROUPS, 1)
    tied = costs.family.head_dim_free or heads * dense[HIDDEN] == sizes[HIDDEN] * dense[HEADS]
    routed = EXPERTS not in sizes or sizes[EXPERTS] >= config.num_experts_per_tok
    divided = not costs.heads_divide_hidden or sizes[HIDDEN] % heads == 0
    smaller = all(0 < sizes[axis] <= size for axis, size in dense.items())
    return even and tied and routed and divided and smaller


def candidates(grid: Grid, costs: Costs, budget: Budget, layers_of: LayersOf = range) -> list[Candidate]:
    """Return every size of the grid that the format can express and the budget holds, the largest first.

    Args:
        grid: the sizes of each axis to combine; an axis left out stays whole or follows.
        costs: the dense model.
        budget: what counts, from where to where.
        layers_of: which dense blocks stay at each depth; it decides the size where blocks are not alike.

    Raises:
        InputError: an axis or a size the model cannot have, or nothing fits; it names the nearest sizes.
    """
    check_grid(grid, costs)
    told = sorted(_priced(grid, costs, budget, layers_of), key=lambda found: (-found.cost, -found.parameters))
    fitting = [candidate for candidate in told if budget.low <= candidate.cost <= budget.high]
    if not fitting:
        raise InputError(_none_fits(told, budget))
    return fitting


def _priced(grid: Grid, costs: Costs, budget: Budget, layers_of: LayersOf) -> list[Candidate]:
    widths = {axis: sorted(set(choices)) for axis, choices in grid.items() if axis != LAYERS}
    choices = (dict(zip(widths, point, strict=True)) for point in itertools.product(*widths.values()))
    shapes = [sizes for choice in choices if (sizes := sizes_of(choice, costs))]
    columns = {axis: np.array([sizes[axis] for sizes in shapes], dtype=np.int64) for axis in costs.sizes}
    told = []
    for depth in sorted(set(grid.get(LAYERS, [costs.sizes[LAYERS]]))):
        layers = list(layers_of(depth))
        parameters = costs.count(columns, layers).tolist()
        prices = budget.cost(costs, columns, layers).tolist()
        told += [
            Candidate(sizes | {LAYERS: depth}, *priced)
            for sizes, *priced in zip(shapes, parameters, prices, strict=True)
        ]
    return told


def _none_fits(told: Sequence[Candidate], budget: Budget) -> str:
    if not told:
        return (
            "no combination in the grid can be expressed: heads and KV heads, or heads and hidden channels, disagree"
        )
    above = [candidate for candidate in told if candidate.cost > budget.high][-1:]
    below = [candidate for candidate in told if candidate.cost < budget.low][:1]
    nearest = " and ".join(f"{candidate.cost:,} ({candidate.name})" for candidate in above + below)
    return f"none of the {len(told):,} sizes in the grid has {budget}; the nearest: {nearest}"


def first_units(sizes: Sizes, costs: Costs) -> Keep:
    """Return a plan of these sizes that keeps the first units of each axis, for counting before anything is scored."""
    dense = costs.sizes
    keep: Keep = {}
    for axis, size in sizes.items():
        if size != dense[axis] or axis == LAYERS:
            units = list(range(size))
            keep[axis] = [units] * dense[LAYERS] if axis in PER_LAYER else units
    if {HEADS, GROUPS} & keep.keys() and GROUPS in dense:
        each, kept = dense[HEADS] // dense[GROUPS], sizes[HEADS] // sizes[GROUPS]
        heads = [group * each + place for group in range(sizes[GROUPS]) for place in range(kept)]
        keep[HEADS] = [heads] * dense[LAYERS]
    return keep
