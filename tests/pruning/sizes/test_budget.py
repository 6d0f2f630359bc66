"""Costs and budgets: the paper's own sizes, and bytes as real files and caches take them."""

import pytest
import torch
from transformers import AutoConfig, StaticCache

from tests.conftest import tiny_config, tiny_model
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Budget, Costs
from trl_prune.pruning.sizes.shapes import complete_sizes, first_units
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
    sizes = complete_sizes(dict(zip((HEADS, NEURONS, HIDDEN), shape, strict=True)), nemotron)
    assert round(nemotron.num_parameters(sizes, range(32)) / 1e9, 2) == billions


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "phi3", "mixtral", "cohere2", "qwen2"])
@pytest.mark.parametrize("max_model_len", [5, 100])
def test_cache_is_as_large_as_the_one_transformers_allocates(family, max_model_len):
    costs = Costs.of(tiny_config(family))
    sizes = complete_sizes({HEADS: 2, KV_HEADS: 1} if KV_HEADS in costs.sizes else {HEADS: 2}, costs) | {LAYERS: 2}
    layers = [1, 3]
    keep = first_units(sizes, costs) | {LAYERS: layers}
    config = type(costs.config).from_dict(costs.config.to_dict() | Cut.of(costs.config, keep).config_changes())
    cache = StaticCache(config, max_cache_len=max_model_len)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache.early_initialization(3, heads, head_dim, torch.float32, "meta")
    expected = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert costs.cache_bytes(sizes, layers, 3, max_model_len) == expected


@torch.inference_mode()
def test_cache_is_as_large_as_the_one_a_forward_pass_fills():
    model = tiny_model("llama")
    cache = model(torch.zeros((3, 20), dtype=torch.long)).past_key_values
    costs = Costs.of(model.config)
    cache_bytes = costs.cache_bytes(costs.sizes, range(4), batch_size=3, max_model_len=20)
    assert cache_bytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def test_windows_and_experts_make_blocks_differ():
    windows = ["sliding_attention"] * 3 + ["full_attention"]
    assert not Costs.of(tiny_config("gemma3_text", layer_types=windows)).blocks_cost_the_same
    assert Costs.of(tiny_config("llama")).blocks_cost_the_same
    assert not Costs.of(tiny_config("qwen3_moe")).blocks_cost_the_same


def test_what_a_budget_counts(nemotron):
    sizes, layers = nemotron.sizes, range(32)
    parameters = Budget(parameters=15.6e9).cost(nemotron, sizes, layers)
    assert parameters == Budget(share=0.5).cost(nemotron, sizes, layers) == 15_628_775_424
    weights = Budget(bytes=1).cost(nemotron, sizes, layers)
    assert weights == 4 * parameters
    memory = Budget(memory=1, batch_size=2, max_model_len=1000).cost(nemotron, sizes, layers)
    assert memory - weights == 2 * 2 * 1000 * 32 * 8 * 128 * 4


@pytest.mark.parametrize(
    ("budget", "bounds"),
    [
        (Budget(parameters=1000), (0, 1000)),
        (Budget(bytes=1000), (0, 1000)),
        (Budget(share=0.5), (0, 7_814_387_712)),
        (Budget(parameters=1000, tolerance=0.1), (900, 1100)),
        (Budget(share=0.5, tolerance=0.5), (3_907_193_856, 11_721_581_568)),
        (Budget(bytes=1000, tolerance=0.1), (900, 1000)),
        (Budget(memory=1000, tolerance=0.1), (900, 1000)),
    ],
)
def test_bounds_are_two_sided_for_parameters_and_upper_for_bytes(nemotron, budget, bounds):
    assert budget.bounds(nemotron) == pytest.approx(bounds)


def test_bounds_are_described_in_digits(nemotron):
    budget = Budget(parameters=4e9, tolerance=0.05)
    assert budget.describe(nemotron) == "3,800,000,000 to 4,200,000,000 parameters"
    assert "0 to 9 bytes on disk" in Budget(bytes=9).describe(nemotron)
    memory = Budget(memory=1, batch_size=2, max_model_len=1000)
    assert "KV cache at batch_size 2, max_model_len 1,000" in memory.describe(nemotron)
