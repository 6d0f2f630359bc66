"""Grids against trying every combination, and the paper's own numbers of candidates."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from tests.conftest import tiny_config
from tests.pruning.sizes.test_budget import NEMOTRON
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import SearchRequest, automatic_grid, find_candidates, hidden_multiple
from trl_prune.pruning.sizes.shapes import MLP_RATIO, complete_sizes, first_units
from trl_prune.pruning.surgery.cut import meta_model


# 2407.14679, Table 9.
TABLE_9 = {LAYERS: [29, 30, 31, 32], MLP_RATIO: [2.5, 3, 3.5, 4]}
TOWARDS_4B = TABLE_9 | {HEADS: [24, 32, 48], HIDDEN: [2560, 3072, 3584, 4096, 4608]}
TOWARDS_8B = TABLE_9 | {HEADS: [32, 48], HIDDEN: [4096, 4608, 5120, 5632, 6144]}


@pytest.fixture(scope="module")
def nemotron() -> Costs:
    return Costs.of(NEMOTRON)


def test_minitrons_grids_give_as_many_candidates_as_it_trained(nemotron):
    small = find_candidates(SearchRequest(Budget(parameters=4e9, tolerance=0.05), TOWARDS_4B), nemotron)
    between = Budget(parameters=8.15e9, tolerance=0.35 / 8.15)  # 7.8 to 8.5 billion
    large = find_candidates(SearchRequest(between, TOWARDS_8B), nemotron)
    assert (len(small), len(large)) == (18, 15)
    assert "L32-H3072-F9216-A24-K8" in [candidate.name for candidate in small]
    assert "L32-H4096-F16384-A48-K8" in [candidate.name for candidate in large]
    assert small == sorted(small, key=lambda candidate: -candidate.parameters)


BETWEEN_1_AND_2 = Budget(parameters=1.5, tolerance=1 / 3)
FAMILIES_TRIED = ["llama", "phi", "gpt2", "mixtral", "stablelm"]
SIZES = {LAYERS: 4, HIDDEN: 32, NEURONS: 48, HEADS: 4, KV_HEADS: 4, EXPERTS: 4}


def grids(family: str) -> st.SearchStrategy[dict[str, list[int]]]:
    axes = sorted(FAMILIES[family].axes)
    lists = {
        axis: st.lists(st.integers(1, SIZES[axis]), min_size=1, max_size=3, unique=True)
        if axis != HIDDEN
        else st.lists(st.sampled_from([8, 16, 24, 32]), min_size=1, max_size=2, unique=True)
        for axis in axes
    }
    return st.fixed_dictionaries({}, optional=lists).filter(lambda grid: 0 < len(grid) < 5)


@pytest.mark.parametrize("family", FAMILIES_TRIED)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_candidates_are_what_trying_every_combination_finds(family, data):
    costs = Costs.of(tiny_config(family))
    grid = data.draw(grids(family).filter(lambda grid: all(max(grid[a]) <= costs.sizes[a] for a in grid)))
    budget = Budget(parameters=data.draw(st.integers(1, 60_000)), tolerance=data.draw(st.floats(0, 1)))
    low, high = budget.bounds(costs)
    expected = set()
    for point in itertools.product(*grid.values()):
        sizes = complete_sizes(dict(zip(grid, point, strict=True)), costs)
        if sizes and low <= counted(sizes, costs) <= high:
            expected.add(tuple(sizes.items()))
    try:
        candidates = find_candidates(SearchRequest(budget, grid), costs)
    except InputError:
        candidates = []
    assert {tuple(candidate.sizes.items()) for candidate in candidates} == expected
    assert len(candidates) == len(expected)


def counted(sizes: dict[str, int], costs: Costs) -> int:
    return sum(weight.numel() for weight in meta_model(costs.config, first_units(sizes, costs)).parameters())


def test_the_automatic_grid_has_model_optimizers_steps_at_8b_and_finer_ones_below():
    llama = AutoConfig.for_model(
        "llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    grid = automatic_grid(Costs.of(llama))
    assert grid[LAYERS] == [32, 30, 28, 26]
    assert grid[HEADS] == [32, 24]
    assert grid[HIDDEN] == list(range(4096, 2457, -256))
    assert grid[NEURONS] == list(range(14336, 8601, -512))
    smol = AutoConfig.for_model(
        "llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3,
    )  # fmt: skip
    grid = automatic_grid(Costs.of(smol), max_width=0.2, max_depth=0.1)
    assert grid == {
        LAYERS: [30, 29, 28, 27],
        HIDDEN: [576, 540, 504, 468],
        NEURONS: [1536, 1472, 1408, 1344, 1280],
        HEADS: [9],
    }


@pytest.mark.parametrize(("multiple", "heads", "expected"), [(256, 32, 256), (256, 28, 224), (32, 9, 36), (2, 9, 9)])
def test_hidden_sizes_are_multiples_of_the_heads(multiple, heads, expected):
    assert hidden_multiple(multiple, heads) == expected


def test_the_automatic_grid_leaves_out_what_the_format_cannot_express():
    assert HIDDEN not in automatic_grid(Costs.of(tiny_config("gpt2")))
    assert automatic_grid(Costs.of(tiny_config("gpt2")), axes=[HIDDEN])[HIDDEN][0] == 32
    assert NEURONS not in automatic_grid(Costs.of(tiny_config("mixtral")))
    quantised = tiny_config("llama")
    quantised.quantization_config = {"quant_method": "gptq"}
    assert set(automatic_grid(Costs.of(quantised))) == {LAYERS}


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({LAYERS: [5]}, r"num_hidden_layers 5; allowed: integers, at most 4"),
        ({NEURONS: [1.5]}, "intermediate_size 1.5; allowed: integers"),
        ({LAYERS: []}, "no size of num_hidden_layers"),
        ({"layers": [2]}, "grid: 'layers' is not an axis of llama"),
        ({MLP_RATIO: [2]}, "mlp_ratio 2; allowed: more than 0, at most 1.5"),
        ({MLP_RATIO: [1], NEURONS: [8]}, "both"),
        ({HEADS: [1, 3]}, "no combination"),
        ({LAYERS: [2, 4]}, r"none of the 2 sizes in the grid has 1 to 2 parameters; the nearest: [\d,]+ \(L2-H32-F48"),
    ],
)
def test_impossible_grids_are_refused(grid, message):
    with pytest.raises(InputError, match=message):
        find_candidates(SearchRequest(BETWEEN_1_AND_2, grid), Costs.of(tiny_config("llama")))


def test_refused_axes_give_the_reason():
    with pytest.raises(InputError, match="its neurons are inside experts"):
        find_candidates(SearchRequest(BETWEEN_1_AND_2, {NEURONS: [24]}), Costs.of(tiny_config("mixtral")))


def test_auto_stands_for_the_automatic_sizes_of_an_axis():
    costs = Costs.of(tiny_config("llama"))
    everything = Budget(share=1.0)
    for grid in ({LAYERS: "auto", NEURONS: [24]}, {}):
        axes = [axis for axis in grid if grid[axis] == "auto"] or [LAYERS, HIDDEN, NEURONS, HEADS]
        listed = grid | automatic_grid(costs, axes, 0.5, 0.5)
        request = SearchRequest(everything, grid, max_width=0.5, max_depth=0.5)
        assert find_candidates(request, costs) == find_candidates(SearchRequest(everything, listed), costs)


def test_the_kept_blocks_decide_the_cost_where_blocks_differ():
    costs = Costs.of(tiny_config("qwen3_moe"))
    assert len(costs.parameter_formula.distinct_blocks) == 2
    for layers in ([0, 2], [0, 1]):
        (candidate,) = find_candidates(SearchRequest(Budget(share=1.0), {LAYERS: [2]}, kept_layers={2: layers}), costs)
        assert candidate.parameters == costs.num_parameters(candidate.sizes, layers)
