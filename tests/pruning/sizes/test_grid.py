"""Grids: nothing that fits is missing, nothing that does not is there, and the paper's own counts."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from tests.conftest import tiny_config
from tests.pruning.sizes.test_budget import NEMOTRON
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.keep import complete_keep
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import MLP_RATIO, automatic_grid, candidates, first_units, sizes_of
from trl_prune.pruning.surgery.cut import meta_model


# 2407.14679, Table 9.
TABLE_9 = {LAYERS: [29, 30, 31, 32], MLP_RATIO: [2.5, 3, 3.5, 4]}
TOWARDS_4B = TABLE_9 | {HEADS: [24, 32, 48], HIDDEN: [2560, 3072, 3584, 4096, 4608]}
TOWARDS_8B = TABLE_9 | {HEADS: [32, 48], HIDDEN: [4096, 4608, 5120, 5632, 6144]}


@pytest.fixture(scope="module")
def nemotron() -> Costs:
    return Costs.of(NEMOTRON)


def test_minitrons_grids_give_as_many_candidates_as_it_trained(nemotron):
    small = candidates(TOWARDS_4B, nemotron, Budget.around(4e9))
    large = candidates(TOWARDS_8B, nemotron, Budget("parameters", 7.8e9, 8.5e9))
    assert (len(small), len(large)) == (18, 15)
    assert "L32-H3072-F9216-A24-K8" in [candidate.name for candidate in small]
    assert "L32-H4096-F16384-A48-K8" in [candidate.name for candidate in large]
    assert small == sorted(small, key=lambda candidate: -candidate.parameters)


FAMILIES_TRIED = ["llama", "phi", "gpt2", "mixtral", "stablelm"]
SIZES = {LAYERS: 4, HIDDEN: 32, NEURONS: 48, HEADS: 4, GROUPS: 4, EXPERTS: 4}


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
    low = data.draw(st.integers(1, 40_000))
    budget = Budget("parameters", low, low + data.draw(st.integers(0, 40_000)))
    wanted = set()
    for point in itertools.product(*grid.values()):
        sizes = sizes_of(dict(zip(grid, point, strict=True)), costs)
        if sizes and budget.low <= counted(sizes, costs) <= budget.high:
            wanted.add(tuple(sizes.items()))
    try:
        told = candidates(grid, costs, budget)
    except InputError:
        told = []
    assert {tuple(candidate.sizes.items()) for candidate in told} == wanted
    assert len(told) == len(wanted)


def counted(sizes: dict[str, int], costs: Costs) -> int:
    return sum(weight.numel() for weight in meta_model(costs.config, first_units(sizes, costs)).parameters())


@pytest.mark.parametrize("family", [*FAMILIES_TRIED, "qwen2_moe", "olmoe", "opt", "cohere"])
def test_expressible_is_what_surgery_accepts(family):
    costs = Costs.of(tiny_config(family))
    axes = [axis for axis in (HEADS, GROUPS, HIDDEN, EXPERTS) if axis in costs.sizes]
    steps = {HIDDEN: [8, 16, 24, 32], HEADS: [1, 2, 3, 4], GROUPS: [1, 2], EXPERTS: [1, 2, 4]}
    for point in itertools.product(*(steps[axis] for axis in axes)):
        choice = dict(zip(axes, point, strict=True))
        told = sizes_of(choice, costs)
        assert (told is not None) == accepted(costs.sizes | choice, costs), choice


def accepted(sizes: dict[str, int], costs: Costs) -> bool:
    if sizes[HEADS] % sizes.get(GROUPS, 1):
        return False  # no list of heads can say it
    try:
        complete_keep(first_units(sizes, costs), costs.config, costs.family)
    except InputError:
        return False
    return True


def test_axes_left_out_follow():
    phi = Costs.of(tiny_config("phi", num_key_value_heads=4))
    assert sizes_of({HEADS: 2}, phi)[GROUPS] == 2
    llama = Costs.of(tiny_config("llama"))
    assert sizes_of({HEADS: 2}, llama)[GROUPS] == 2
    assert sizes_of({GROUPS: 1}, llama)[HEADS] == 2
    gpt2 = Costs.of(tiny_config("gpt2"))
    assert sizes_of({HEADS: 3}, gpt2)[HIDDEN] == 24
    assert sizes_of({HIDDEN: 16}, gpt2)[HEADS] == 2
    assert sizes_of({HIDDEN: 17}, gpt2) is None
    assert sizes_of({MLP_RATIO: 1.5, HIDDEN: 24}, llama)[NEURONS] == 36


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


def test_the_automatic_grid_knows_what_a_format_cannot_say():
    assert HIDDEN not in automatic_grid(Costs.of(tiny_config("gpt2")))
    assert automatic_grid(Costs.of(tiny_config("gpt2")), axes=[HIDDEN])[HIDDEN][0] == 32
    assert NEURONS not in automatic_grid(Costs.of(tiny_config("mixtral")))
    quantised = tiny_config("llama")
    quantised.quantization_config = {"quant_method": "gptq"}
    assert set(automatic_grid(Costs.of(quantised))) == {LAYERS}


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({LAYERS: [5]}, r"num_hidden_layers 5; allowed: whole numbers, at most 4"),
        ({NEURONS: [1.5]}, "intermediate_size 1.5; allowed: whole numbers"),
        ({LAYERS: []}, "no size of num_hidden_layers"),
        ({"layers": [2]}, "axis 'layers'"),
        ({MLP_RATIO: [2]}, "mlp_ratio 2; allowed: more than 0, at most 1.5"),
        ({MLP_RATIO: [1], NEURONS: [8]}, "both"),
        ({HEADS: [1, 3]}, "no combination"),
        ({LAYERS: [2, 4]}, r"none of the 2 sizes in the grid has 1 to 2 parameters; the nearest: [\d,]+ \(L2-H32-F48"),
    ],
)
def test_what_cannot_be_is_told(grid, told):
    with pytest.raises(InputError, match=told):
        candidates(grid, Costs.of(tiny_config("llama")), Budget("parameters", 1, 2))


def test_refused_axes_say_why():
    with pytest.raises(InputError, match="its neurons sit in experts"):
        candidates({NEURONS: [24]}, Costs.of(tiny_config("mixtral")), Budget("parameters", 1, 1e9))
