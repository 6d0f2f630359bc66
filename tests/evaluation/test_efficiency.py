import pytest
import torch

from tests.conftest import SIZES, VOCABULARY, tiny_model
from trl_prune.evaluation.efficiency import FLOP_TOKENS, faster_dtype, measure_size, measure_speed
from trl_prune.pruning.families import FAMILIES
from trl_prune.pruning.surgery.cut import LAYERS, meta_model


def test_size_of_a_llama_by_hand():
    model = tiny_model("llama")
    hidden, inner, layers, heads, groups = 32, SIZES["intermediate_size"], 4, 4, 2
    head = hidden // heads
    projections = 2 * hidden * hidden + 2 * hidden * groups * head + 3 * hidden * inner
    parameters = 2 * VOCABULARY * hidden + layers * (projections + 2 * hidden) + hidden
    attention = 2 * 2 * FLOP_TOKENS * hidden  # scores and sums over all positions, a token
    rotary = (head // 2) * 2  # the angles are a matrix product too
    told = measure_size(meta_model(model.config))
    assert told.parameters == parameters == sum(weight.numel() for weight in model.parameters())
    wanted = layers * (2 * projections + attention) + 2 * VOCABULARY * hidden
    assert told.flops_per_token == pytest.approx(wanted + rotary, abs=rotary)


def test_a_cut_saves_its_blocks():
    config = tiny_model("llama").config
    dense, half = measure_size(meta_model(config)), measure_size(meta_model(config, {LAYERS: [0, 3]}))
    quarter = measure_size(meta_model(config, {LAYERS: [0]}))
    assert dense.parameters - half.parameters == 2 * (half.parameters - quarter.parameters)
    assert dense.flops_per_token - half.flops_per_token == 2 * (half.flops_per_token - quarter.flops_per_token)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_counted_without_memory(family):
    model = tiny_model(family)
    assert measure_size(meta_model(model.config)).parameters == sum(weight.numel() for weight in model.parameters())


def test_speed_and_dtype_are_measured():
    model = tiny_model("llama")
    told = measure_speed(model, batch=1, tokens=8, new_tokens=2)
    assert told.prompt > 0
    assert told.decode > 0
    assert faster_dtype(model) in ("float32", "bfloat16")
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.is_grad_enabled()
