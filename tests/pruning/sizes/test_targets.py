"""Sizes for a budget: inside it, and no larger step fits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import first_units, hidden_step, step_of
from trl_prune.pruning.sizes.targets import shrunk_sizes
from trl_prune.pruning.surgery.cut import meta_model


COSTS = {family: Costs.of(tiny_model(family).config) for family in ("llama", "gpt2", "qwen3_moe", "gemma2")}
AXES = {
    "llama": [LAYERS, HIDDEN, NEURONS, HEADS],
    "gpt2": [LAYERS, NEURONS, HEADS],
    "qwen3_moe": [LAYERS, EXPERTS, HIDDEN],
    "gemma2": [HIDDEN, NEURONS, GROUPS],
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
    budget = Budget("parameters", 0, share * dense)
    try:
        sizes = shrunk_sizes(costs, budget, sorted(axes), rounded)
    except InputError:
        return
    assert counted(costs, sizes) <= budget.high
    for axis in axes & {NEURONS, EXPERTS, LAYERS}:  # nothing else hangs on these
        step = 1 if axis == LAYERS or not rounded else step_of(axis, costs)
        if sizes[axis] + step <= costs.sizes[axis]:
            assert counted(costs, sizes | {axis: sizes[axis] + step}) > budget.high
    larger = shrunk_sizes(costs, Budget("parameters", 0, dense), sorted(axes), rounded)
    assert larger == costs.sizes
    untouched = costs.sizes.keys() - axes - {HEADS, GROUPS, HIDDEN}
    assert all(sizes[axis] == costs.sizes[axis] for axis in untouched)


def test_one_axis_takes_the_largest_size_that_fits():
    costs = COSTS["llama"]
    for neurons in range(1, 49):
        high = counted(costs, costs.sizes | {NEURONS: neurons})
        assert shrunk_sizes(costs, Budget("parameters", 0, high), [NEURONS], False)[NEURONS] == neurons
        if neurons > 1:
            assert shrunk_sizes(costs, Budget("parameters", 0, high - 1), [NEURONS], False)[NEURONS] == neurons - 1


@pytest.mark.parametrize(("rounded", "neurons"), [(True, 46), (False, 47)])
def test_rounding_goes_down(rounded, neurons):
    costs = COSTS["llama"]
    high = counted(costs, costs.sizes | {NEURONS: 47})
    assert shrunk_sizes(costs, Budget("parameters", 0, high), [NEURONS], rounded)[NEURONS] == neurons


@pytest.mark.parametrize(("step", "heads", "wanted"), [(256, 32, 256), (256, 28, 224), (32, 9, 36), (2, 9, 9)])
def test_hidden_steps_are_multiples_of_the_heads(step, heads, wanted):
    assert hidden_step(step, heads) == wanted


def test_a_budget_too_small_is_told_with_the_least():
    with pytest.raises(InputError, match="the budget is 10, and the least of num_hidden_layers leaves"):
        shrunk_sizes(COSTS["llama"], Budget("parameters", 0, 10), [LAYERS])


def test_an_axis_the_model_does_not_have_is_told():
    with pytest.raises(InputError, match="num_experts"):
        shrunk_sizes(COSTS["llama"], Budget("parameters", 0, 1e9), [EXPERTS])
