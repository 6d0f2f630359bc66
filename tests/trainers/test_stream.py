"""Oracle: transformers' own hidden states, and the norms applied to them by hand."""

import pytest
import torch

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.trainers.stream import INPUT_NORMS, Point, blocks_of, reading


FAMILIES = ["llama", "gemma2", "gpt2", "opt", "phi", "olmo2", "qwen3", "gpt_neox", "cohere"]
TOKENS = torch.arange(24).view(2, 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_the_models_own_as_the_next_norm_sees_them(family):
    model = tiny_model(family)
    points = (Point("embedding", 0), Point("block", 1), Point("block", 3))
    with torch.no_grad(), reading(model, points) as states:
        last = model.base_model(TOKENS, use_cache=False).last_hidden_state
    with torch.no_grad():
        hidden = model(TOKENS, output_hidden_states=True, use_cache=False).hidden_states
    blocks = blocks_of(model)
    for point, stream, reader in ((points[0], hidden[0], blocks[0]), (points[1], hidden[2], blocks[2])):
        norm = next((child for name, child in reader.named_children() if name in INPUT_NORMS), None)
        with torch.no_grad():
            torch.testing.assert_close(states[point], stream if norm is None else norm(stream))
    assert torch.equal(states[points[2]], last)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "phi"])
def test_mlp_inputs(family):
    model = tiny_model(family)
    with torch.no_grad(), reading(model, (Point("mlp", 2),)) as states:
        model.base_model(TOKENS, use_cache=False)
    assert states[Point("mlp", 2)].shape[-1] == 32


def test_queries_keys_and_values():
    model = tiny_model("llama")
    with torch.no_grad(), reading(model, (Point("attention", 1),)) as states:
        model.base_model(TOKENS, use_cache=False)
    told = states[Point("attention", 1)]
    assert {name: part.shape for name, part in told.items()} == {
        "q_proj": (2, 12, 32),
        "k_proj": (2, 12, 16),
        "v_proj": (2, 12, 16),
    }
    with pytest.raises(InputError, match="hidden_loss names 'attention', but GPT2Block has no q_proj"):
        reading(tiny_model("gpt2"), (Point("attention", 1),)).__enter__()


def test_nothing_is_left_behind():
    model = tiny_model("llama")
    with reading(model, (Point("embedding", 0), Point("block", 3), Point("mlp", 0), Point("attention", 0))):
        model.base_model(TOKENS, use_cache=False)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_norm_gets_no_gradient_from_what_it_measures():
    model = tiny_model("llama")
    with reading(model, (Point("block", 1),)) as states:
        model.base_model(TOKENS, use_cache=False)
    states[Point("block", 1)].sum().backward()
    assert model.model.layers[2].input_layernorm.weight.grad is None
    assert model.model.layers[1].mlp.down_proj.weight.grad.abs().max() > 0
