"""Sizes for a budget: within it, and no axis can take another step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import size_multiple
from trl_prune.pruning.sizes.shapes import first_units
from trl_prune.pruning.sizes.shrinking import shrunk_sizes
from trl_prune.pruning.surgery.cut import meta_model


COSTS = {family: Costs.of(tiny_model(family).config) for family in ("llama", "gpt2", "qwen3_moe", "gemma2")}
AXES = {
    "llama": [LAYERS, HIDDEN, NEURONS, HEADS],
    "gpt2": [LAYERS, NEURONS, HEADS],
    "qwen3_moe": [LAYERS, EXPERTS, HIDDEN],
    "gemma2": [HIDDEN, NEURONS, KV_HEADS],
}


def counted(costs: Costs, sizes: dict[str, int]) -> int:
    return sum(weight.numel() for weight in meta_model(costs.config, first_units(sizes, costs)).parameters())


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_sizes_are_inside_the_budget_and_the_next_larger_are_not(data):
    family = data.draw(st.sampled_from(sorted(COSTS)))
    costs, axes = COSTS[family], data.draw(st.sets(st.sampled_from(AXES[family]), min_size=1))
    if family == "gpt2" and HIDDEN in axes:
        axes |= {HEADS}
    dense = counted(costs, costs.sizes)
    share, rounded = data.draw(st.floats(0.6, 1.0)), data.draw(st.booleans())
    budget = Budget(parameters=share * dense)
    try:
        sizes = shrunk_sizes(costs, budget, sorted(axes), rounded)
    except InputError:
        return
    assert counted(costs, sizes) <= budget.parameters
    for axis in axes & {NEURONS, EXPERTS, LAYERS}:  # no other axis follows these
        step = 1 if axis == LAYERS or not rounded else size_multiple(axis, costs)
        if sizes[axis] + step <= costs.sizes[axis]:
            assert counted(costs, sizes | {axis: sizes[axis] + step}) > budget.parameters
    larger = shrunk_sizes(costs, Budget(parameters=dense), sorted(axes), rounded)
    assert larger == costs.sizes
    untouched = costs.sizes.keys() - axes - {HEADS, KV_HEADS, HIDDEN}
    assert all(sizes[axis] == costs.sizes[axis] for axis in untouched)


def test_one_axis_takes_the_largest_size_that_fits():
    costs = COSTS["llama"]
    for neurons in range(1, 49):
        high = counted(costs, costs.sizes | {NEURONS: neurons})
        assert shrunk_sizes(costs, Budget(parameters=high), [NEURONS], False)[NEURONS] == neurons
        if neurons > 1:
            assert shrunk_sizes(costs, Budget(parameters=high - 1), [NEURONS], False)[NEURONS] == neurons - 1


@pytest.mark.parametrize(("rounded", "neurons"), [(True, 46), (False, 47)])
def test_sizes_are_rounded_down(rounded, neurons):
    costs = COSTS["llama"]
    high = counted(costs, costs.sizes | {NEURONS: 47})
    assert shrunk_sizes(costs, Budget(parameters=high), [NEURONS], rounded)[NEURONS] == neurons


def test_a_budget_too_small_is_refused_with_the_smallest_cost():
    with pytest.raises(InputError, match=r"the budget is 10, and the smallest possible num_hidden_layers cost \d"):
        shrunk_sizes(COSTS["llama"], Budget(parameters=10), [LAYERS])
