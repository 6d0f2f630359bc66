"""The search space of Minitron (2407.14679, section 4.3 and Table 9): combinations of sizes that fit a budget."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from trl_prune.errors import InputError
from trl_prune.pruning.families import AXES, AXIS_NAMES, EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS, Family
from trl_prune.pruning.keep import check_axis, expert_groups
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.formula import Sizes
from trl_prune.pruning.sizes.shapes import MLP_RATIO, complete_sizes


Grid = dict[str, Sequence[float]]
# Automatic sizes are multiples of a sixteenth of the axis, rounded down to a power of two, and at most of these: sizes
# that tensor cores and tensor parallelism prefer.
STEPS_PER_AXIS = 16
LARGEST_MULTIPLES = {HIDDEN: 256, NEURONS: 512, LAYERS: 2, EXPERTS: 8}
# Largest shares of an axis to remove; larger cuts need more training than a search gives.
MAX_WIDTH, MAX_DEPTH = 0.4, 0.2
AUTO_AXES = (LAYERS, HIDDEN, NEURONS, HEADS, EXPERTS)
ABBREVIATIONS = {LAYERS: "L"} | {axis: letter for letter, axis in AXIS_NAMES.items()}


@dataclass(frozen=True)
class SearchRequest:
    """What to search for.

    Attributes:
        budget: the cost that a candidate may have.
        grid: the sizes of each axis to combine, or `auto`; other axes keep their dense size or follow. `mlp_ratio` may
            stand for `intermediate_size`. Empty: every axis but KV heads, `auto`.
        max_width: for `auto`, the largest share of an axis other than layers to remove.
        max_depth: for `auto`, the largest share of the layers to remove.
        kept_layers: the dense blocks that are kept, by their number; the first ones where left out. They decide the
            cost where blocks differ.
    """

    budget: Budget
    grid: Mapping[str, Sequence[float] | Literal["auto"]] = field(default_factory=dict)
    max_width: float = MAX_WIDTH
    max_depth: float = MAX_DEPTH
    kept_layers: Mapping[int, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A shape that fits the budget.

    Attributes:
        sizes: the sizes of all axes of the family.
        parameters: number of parameters, tied weights counted once.
        cost: what the budget counts: parameters or bytes.
    """

    sizes: Sizes
    parameters: int
    cost: int

    @property
    def name(self) -> str:
        """A short name, such as `L24-H512-F1536-A9-K3`."""
        return "-".join(f"{ABBREVIATIONS[axis]}{size}" for axis, size in self.sizes.items())


def find_candidates(request: SearchRequest, costs: Costs) -> list[Candidate]:
    """Return every combination of the grid that the format can express and that fits the budget, the largest first.

    Args:
        request: the grid and the budget.
        costs: the dense model.

    Raises:
        InputError: an axis or a size that the model cannot have, or nothing fits; the message names the nearest sizes.
    """
    grid = _complete_grid(request, costs)
    _check_sizes(grid, costs)
    priced = _priced(grid, request, costs)
    low, high = request.budget.bounds(costs)
    fitting = [candidate for candidate in priced if low <= candidate.cost <= high]
    if not priced:
        raise InputError(
            "no combination in the grid can be expressed: heads and KV heads, or heads and hidden channels, disagree"
        )
    if not fitting:
        larger = [candidate for candidate in priced if candidate.cost > high][-1:]
        smaller = [candidate for candidate in priced if candidate.cost < low][:1]
        nearest = " and ".join(f"{candidate.cost:,} ({candidate.name})" for candidate in larger + smaller)
        bounds = request.budget.describe(costs)
        raise InputError(f"none of the {len(priced):,} sizes in the grid has {bounds}; the nearest: {nearest}")
    return fitting


def _complete_grid(request: SearchRequest, costs: Costs) -> Grid:
    """Return the grid with lists of sizes in place of `auto`."""
    for name, sizes in request.grid.items():
        axis = NEURONS if name == MLP_RATIO and sizes != "auto" else name
        check_axis(axis, costs.sizes, costs.config, costs.family, "grid: ")
    auto = [axis for axis, sizes in request.grid.items() if sizes == "auto"] if request.grid else AUTO_AXES
    listed = {axis: sizes for axis, sizes in request.grid.items() if sizes != "auto"}
    return listed | automatic_grid(costs, auto, request.max_width, request.max_depth)


def automatic_grid(
    costs: Costs, axes: Sequence[str] = AUTO_AXES, max_width: float = MAX_WIDTH, max_depth: float = MAX_DEPTH
) -> Grid:
    """Return hardware-friendly sizes of each axis, from the dense one down.

    Args:
        costs: the dense model.
        axes: those to cut, where the model has them; KV heads, which Minitron does not cut, only where named.
        max_width: the largest share of an axis other than layers to remove.
        max_depth: the largest share of the layers to remove.
    """
    is_quantised = getattr(costs.config, "quantization_config", None) is not None
    prunable = costs.sizes.keys() & ({LAYERS, EXPERTS} if is_quantised else set(AXES))
    grid: Grid = {}
    for axis in axes:
        if axis in prunable and not _follows_heads(axis, costs.family, axes):
            size, multiple = costs.sizes[axis], size_multiple(axis, costs)
            smallest = max(1, size * (1 - (max_depth if axis == LAYERS else max_width)))
            smaller = (cut for cut in range(multiple, size, multiple) if cut >= smallest)
            grid[axis] = sorted({size, *smaller}, reverse=True)
    return grid


def _follows_heads(axis: str, family: Family, axes: Sequence[str]) -> bool:
    return axis == HIDDEN and not family.reads_head_dim and HEADS in axes


def size_multiple(axis: str, costs: Costs) -> int:
    """Return the number of which sizes of an axis should be multiples."""
    sizes = costs.sizes
    if axis == HEADS:
        return sizes.get(KV_HEADS, 1) if sizes.get(KV_HEADS) != sizes[HEADS] else 1
    if axis == KV_HEADS:
        return 1
    power = 1 << max(0, (sizes[axis] // STEPS_PER_AXIS).bit_length() - 1)
    multiple = min(LARGEST_MULTIPLES[axis], power)
    if axis == EXPERTS:
        return math.lcm(multiple, expert_groups(costs.config))
    return hidden_multiple(multiple, sizes[HEADS]) if axis == HIDDEN and costs.heads_divide_hidden else multiple


def hidden_multiple(multiple: int, heads: int) -> int:
    """Return the multiple of `heads` with the most factors of two that exceeds `multiple` by at most a quarter."""
    multiples = [math.lcm(heads, 1 << power) for power in range(multiple.bit_length())]
    return max([number for number in multiples if 4 * number <= 5 * multiple], default=heads)


def _check_sizes(grid: Grid, costs: Costs) -> None:
    """Check that the model can have the sizes of a grid."""
    if MLP_RATIO in grid and NEURONS in grid:
        raise InputError(f"the grid has both {MLP_RATIO} and {NEURONS}, of which one follows from the other")
    for name, sizes in grid.items():
        if not sizes:
            raise InputError(f"the grid has no size of {name}; leave the axis out if it must not be cut")
        largest, allowed = costs.sizes.get(name), "integers"
        if name == MLP_RATIO:
            largest, allowed = costs.sizes[NEURONS] / min(grid.get(HIDDEN, [costs.sizes[HIDDEN]])), "more than 0"
        impossible = [size for size in sizes if not 0 < size <= largest or (name != MLP_RATIO and size != int(size))]
        if impossible:
            raise InputError(f"the grid has {name} {impossible[0]}; allowed: {allowed}, at most {largest:g}")


def _priced(grid: Grid, request: SearchRequest, costs: Costs) -> list[Candidate]:
    """Return every expressible combination with its cost, the most expensive first."""
    widths = {axis: sorted(set(sizes)) for axis, sizes in grid.items() if axis != LAYERS}
    combinations = (dict(zip(widths, sizes, strict=True)) for sizes in itertools.product(*widths.values()))
    shapes = [shape for sizes in combinations if (shape := complete_sizes(sizes, costs))]
    columns = {axis: np.array([shape[axis] for shape in shapes], dtype=np.int64) for axis in costs.sizes}
    candidates = []
    for depth in sorted(set(grid.get(LAYERS, [costs.sizes[LAYERS]]))):
        layers = list(request.kept_layers.get(depth, range(depth)))
        parameters = costs.num_parameters(columns, layers).tolist()
        prices = request.budget.cost(costs, columns, layers).tolist()
        candidates += [
            Candidate(shape | {LAYERS: depth}, count, price)
            for shape, count, price in zip(shapes, parameters, prices, strict=True)
        ]
    return sorted(candidates, key=lambda candidate: (-candidate.cost, -candidate.parameters))
