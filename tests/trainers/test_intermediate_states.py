"""States against transformers' own hidden states, and against norms applied to these."""

import pytest
import torch
from accelerate import cpu_offload

from tests.conftest import SIZES, tiny_model
from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.intermediate_states import (
    INPUT_NORMS,
    StatePoint,
    capture_states,
    comparison_norm,
)


FAMILIES = ["llama", "gemma2", "gpt2", "opt", "phi", "olmo2", "qwen3", "gpt_neox", "cohere"]
TOKENS = torch.arange(24).view(2, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_models_and_comparison_norms_those_of_the_next_module(family):
    model = tiny_model(family)
    points = (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3))
    with torch.no_grad(), capture_states(model, points) as states:
        last_hidden_state = model.base_model(TOKENS, use_cache=False).last_hidden_state
    with torch.no_grad():
        hidden = model(TOKENS, output_hidden_states=True, use_cache=False).hidden_states
    blocks = decoder_blocks(model)
    for point, state, next_block in ((points[0], hidden[0], blocks[0]), (points[1], hidden[2], blocks[2])):
        assert torch.equal(states[point], state)
        copied = comparison_norm(model, point)
        norm = next((child for name, child in next_block.named_children() if name in INPUT_NORMS), None)
        assert (copied is None) == (norm is None)
        if norm is not None:
            with torch.no_grad():
                torch.testing.assert_close(copied(state), norm(state))
    torch.testing.assert_close(comparison_norm(model, points[2])(states[points[2]]), last_hidden_state)


def test_a_comparison_norm_is_a_frozen_copy():
    model = tiny_model("llama", dtype=torch.bfloat16)
    norm = model.model.layers[2].input_layernorm
    copied, before = comparison_norm(model, StatePoint("block", 1)), norm.weight.float().clone()
    with torch.no_grad():
        norm.weight.add_(1)
    assert torch.equal(copied.weight, before)
    assert not copied.weight.requires_grad
    assert norm.weight.requires_grad
    assert comparison_norm(model, StatePoint("mlp", 1)) is None


@pytest.mark.parametrize("arguments", [{"bias": False}, {"elementwise_affine": False}])
def test_a_comparison_norm_of_a_norm_without_weights(arguments):
    model = tiny_model("gpt2")
    norm = decoder_blocks(model)[2].ln_1 = torch.nn.LayerNorm(SIZES["hidden_size"], **arguments)
    states = torch.randn(3, SIZES["hidden_size"])
    assert torch.equal(comparison_norm(model, StatePoint("block", 1))(states), norm(states))


def test_a_comparison_norm_of_offloaded_weights():
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
    with torch.no_grad(), capture_states(model, (StatePoint("mlp", 2),)) as states:
        model.base_model(TOKENS, use_cache=False)
    assert states[StatePoint("mlp", 2)].shape[-1] == 32


def test_queries_keys_and_values():
    model = tiny_model("llama")
    with torch.no_grad(), capture_states(model, (StatePoint("attention", 1),)) as states:
        model.base_model(TOKENS, use_cache=False)
    projections = states[StatePoint("attention", 1)]
    assert {name: projection.shape for name, projection in projections.items()} == {
        "q_proj": (2, 12, 32),
        "k_proj": (2, 12, 16),
        "v_proj": (2, 12, 16),
    }
    with pytest.raises(InputError, match="hidden_loss names 'attention', but GPT2Block has no q_proj"):
        capture_states(tiny_model("gpt2"), (StatePoint("attention", 1),)).__enter__()


def test_all_hooks_are_removed():
    model = tiny_model("llama")
    points = (StatePoint("embedding", 0), StatePoint("block", 3), StatePoint("mlp", 0), StatePoint("attention", 0))
    with capture_states(model, points):
        model.base_model(TOKENS, use_cache=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("reentrant", [False, True])
def test_states_of_the_stream_keep_their_graph_under_gradient_checkpointing(reentrant):
    model = tiny_model("llama").train()
    points = (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3))
    gradients = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model.zero_grad()
        with capture_states(model, points) as states:
            model.base_model(TOKENS, use_cache=False)
        sum(state.square().sum() for state in states.values()).backward()
        gradients.append([layer.mlp.down_proj.weight.grad.clone() for layer in model.model.layers])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)
        assert plain.abs().max() > 0
