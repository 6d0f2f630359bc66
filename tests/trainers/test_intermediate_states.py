"""Oracle: transformers' own hidden states, and the norms applied to them by hand."""

import pytest
import torch
from accelerate import cpu_offload

from tests.conftest import SIZES, tiny_model
from trl_prune.errors import InputError
from trl_prune.trainers.intermediate_states import INPUT_NORMS, StatePoint, blocks_of, captured_states, comparison_norm


FAMILIES = ["llama", "gemma2", "gpt2", "opt", "phi", "olmo2", "qwen3", "gpt_neox", "cohere"]
TOKENS = torch.arange(24).view(2, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_models_own_and_rulers_the_norms_that_read_them(family):
    model = tiny_model(family)
    points = (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3))
    with torch.no_grad(), captured_states(model, points) as states:
        last = model.base_model(TOKENS, use_cache=False).last_hidden_state
    with torch.no_grad():
        hidden = model(TOKENS, output_hidden_states=True, use_cache=False).hidden_states
    blocks = blocks_of(model)
    for point, stream, reader in ((points[0], hidden[0], blocks[0]), (points[1], hidden[2], blocks[2])):
        assert torch.equal(states[point], stream)
        own = comparison_norm(model, point)
        norm = next((child for name, child in reader.named_children() if name in INPUT_NORMS), None)
        assert (own is None) == (norm is None)
        if norm is not None:
            with torch.no_grad():
                torch.testing.assert_close(own(stream), norm(stream))
    torch.testing.assert_close(comparison_norm(model, points[2])(states[points[2]]), last)


def test_a_ruler_is_frozen_and_outlives_its_model():
    model = tiny_model("llama", dtype=torch.bfloat16)
    norm = model.model.layers[2].input_layernorm
    own, before = comparison_norm(model, StatePoint("block", 1)), norm.weight.float().clone()
    with torch.no_grad():
        norm.weight.add_(1)
    assert torch.equal(own.weight, before)
    assert not own.weight.requires_grad
    assert norm.weight.requires_grad
    assert comparison_norm(model, StatePoint("mlp", 1)) is None


@pytest.mark.parametrize("told", [{"bias": False}, {"elementwise_affine": False}])
def test_a_ruler_of_a_norm_that_lacks_weights(told):
    model = tiny_model("gpt2")
    norm = blocks_of(model)[2].ln_1 = torch.nn.LayerNorm(SIZES["hidden_size"], **told)
    states = torch.randn(3, SIZES["hidden_size"])
    assert torch.equal(comparison_norm(model, StatePoint("block", 1))(states), norm(states))


def test_a_ruler_of_offloaded_weights():
    model = tiny_model("llama")
    plain = comparison_norm(model, StatePoint("block", 1))
    cpu_offload(model, torch.device("cpu"))
    offloaded = comparison_norm(model, StatePoint("block", 1))
    assert torch.equal(offloaded.weight, plain.weight)
    states = torch.randn(3, SIZES["hidden_size"])
    assert torch.equal(offloaded(states), plain(states))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi"])
def test_mlp_inputs(family):
    model = tiny_model(family)
    with torch.no_grad(), captured_states(model, (StatePoint("mlp", 2),)) as states:
        model.base_model(TOKENS, use_cache=False)
    assert states[StatePoint("mlp", 2)].shape[-1] == 32


def test_queries_keys_and_values():
    model = tiny_model("llama")
    with torch.no_grad(), captured_states(model, (StatePoint("attention", 1),)) as states:
        model.base_model(TOKENS, use_cache=False)
    told = states[StatePoint("attention", 1)]
    assert {name: part.shape for name, part in told.items()} == {
        "q_proj": (2, 12, 32),
        "k_proj": (2, 12, 16),
        "v_proj": (2, 12, 16),
    }
    with pytest.raises(InputError, match="hidden_loss names 'attention', but GPT2Block has no q_proj"):
        captured_states(tiny_model("gpt2"), (StatePoint("attention", 1),)).__enter__()


def test_nothing_is_left_behind():
    model = tiny_model("llama")
    with captured_states(
        model, (StatePoint("embedding", 0), StatePoint("block", 3), StatePoint("mlp", 0), StatePoint("attention", 0))
    ):
        model.base_model(TOKENS, use_cache=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_stream_keeps_its_graph_where_blocks_are_checkpointed(reentrant):
    model = tiny_model("llama").train()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.zero_grad()
        with captured_states(
            model, (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3))
        ) as states:
            model.base_model(TOKENS, use_cache=False)
        sum(part.square().sum() for part in states.values()).backward()
        gradients.append([layer.mlp.down_proj.weight.grad.clone() for layer in model.model.layers])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)
        assert plain.abs().max() > 0
