"""Budgets: the sizes that the paper printed, and bytes as files and caches really take."""

import pytest
import torch
from transformers import AutoConfig, StaticCache

from tests.conftest import tiny_config, tiny_model
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.grid import first_units, sizes_of
from trl_prune.pruning.surgery.cut import Cut


# Nemotron-4 15B (2407.14679, Table 9): 32 layers, 48 heads in 8 groups, MLP factor 4, vocabulary 256k, untied.
NEMOTRON = AutoConfig.for_model(
    "nemotron",
    hidden_size=6144,
    num_hidden_layers=32,
    num_attention_heads=48,
    num_key_value_heads=8,
    intermediate_size=24576,
    vocab_size=256000,
    head_dim=128,
)


@pytest.fixture(scope="module")
def nemotron() -> Costs:
    return Costs.of(NEMOTRON)


@pytest.mark.parametrize(
    ("shape", "billions"),
    [((48, 24576, 6144), 15.63), ((48, 16384, 4096), 8.27), ((24, 9216, 3072), 4.19)],
)
def test_minitrons_own_sizes(nemotron, shape, billions):
    sizes = sizes_of(dict(zip((HEADS, NEURONS, HIDDEN), shape, strict=True)), nemotron)
    assert round(nemotron.count(sizes, range(32)) / 1e9, 2) == billions


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi3", "mixtral", "cohere2", "qwen2"])
@pytest.mark.parametrize("context", [5, 100])
def test_cache_is_as_large_as_the_one_transformers_lays_out(family, context):
    costs = Costs.of(tiny_config(family))
    sizes = sizes_of({HEADS: 2, GROUPS: 1} if GROUPS in costs.sizes else {HEADS: 2}, costs) | {LAYERS: 2}
    layers = [1, 3]
    keep = first_units(sizes, costs) | {LAYERS: layers}
    config = type(costs.config).from_dict(costs.config.to_dict() | Cut.of(costs.config, keep).changed_config())
    cache = StaticCache(config, max_cache_len=context)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache.early_initialization(3, heads, head_dim, torch.float32, "meta")
    wanted = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert costs.cache_bytes(sizes, layers, 3, context) == wanted


@torch.inference_mode()
def test_cache_is_as_large_as_the_one_a_forward_pass_fills():
    model = tiny_model("llama")
    cache = model(torch.zeros((3, 20), dtype=torch.long)).past_key_values
    costs = Costs.of(model.config)
    told = costs.cache_bytes(costs.sizes, range(4), batch=3, context=20)
    assert told == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def test_windows_make_blocks_unlike():
    assert not Costs.of(
        tiny_config("gemma3_text", layer_types=["sliding_attention"] * 3 + ["full_attention"])
    ).blocks_are_alike
    assert Costs.of(tiny_config("llama")).blocks_are_alike
    assert not Costs.of(tiny_config("qwen3_moe")).blocks_are_alike


def test_what_a_budget_counts(nemotron):
    sizes, layers = nemotron.sizes, range(32)
    parameters = Budget.around(15.6e9).cost(nemotron, sizes, layers)
    assert parameters == 15_628_775_424
    weights = Budget("bytes", 0, 1).cost(nemotron, sizes, layers)
    assert weights == 4 * parameters
    memory = Budget("memory", 0, 1, batch=2, context=1000).cost(nemotron, sizes, layers)
    assert memory - weights == 2 * 2 * 1000 * 32 * 8 * 128 * 4
    assert str(Budget.around(4e9)) == "3,800,000,000 to 4,200,000,000 parameters"
    assert "batch 2, context 1,000" in str(Budget("memory", 0, 1, 2, 1000))
