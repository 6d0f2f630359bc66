"""Reference: float64 formulas over transformers' hidden states; invariance to batching."""

import math

import pytest
import torch

from tests.conftest import tiny_model
from tests.families import family_params
from tests.pruning.batches import LENGTHS, batch
from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.layers import score_layers, scored_positions


@torch.inference_mode()
def reference(model, lengths, tokens):
    """Return the mean angle and cosine of all pairs, one unpadded text at a time; the last state before the norm."""
    angle, cosine, count = 0, 0, 0
    outputs = []
    handle = decoder_blocks(model)[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
    for length in lengths:
        states = model(**batch((length,)), output_hidden_states=True, use_cache=False).hidden_states[:-1]
        last = outputs.pop() if isinstance(outputs[-1], torch.Tensor) else outputs.pop()[0]
        stacked = torch.stack([*states, last])[:, 0].double()  # (L + 1, tokens, hidden_size)
        stacked = stacked[:, -1:] if tokens == "last" else stacked
        unit = stacked / stacked.norm(dim=-1, keepdim=True)
        cos = torch.einsum("ltd,mtd->tlm", unit, unit).clamp(-1, 1)
        angle, cosine, count = angle + (cos.arccos() / math.pi).sum(0), cosine + cos.sum(0), count + len(cos)
    handle.remove()
    return angle / count, cosine / count


@pytest.mark.parametrize("tokens", ["all", "last"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "opt", "qwen3"])
def test_scores_equal_the_formula(family, tokens):
    model = tiny_model(family)
    scores = score_layers(model, [batch()], tokens)
    angle, cosine = reference(model, LENGTHS, tokens)
    distances = scores.angular_distance()
    off_diagonal = ~torch.eye(len(angle), dtype=torch.bool)
    torch.testing.assert_close(distances[off_diagonal], angle[off_diagonal], atol=2e-4, rtol=0)
    torch.testing.assert_close(scores.block_influence(), 1 - cosine.diagonal(1), atol=1e-5, rtol=0)
    assert distances.min() >= 0
    assert distances.max() <= 1


@pytest.mark.parametrize("family", family_params())
def test_every_family_can_be_scored(family):
    scores = score_layers(tiny_model(family), [batch()])
    assert scores.num_positions == sum(LENGTHS)
    assert scores.num_layers == 4
    assert (scores.block_influence() > 1e-6).all()


@pytest.mark.parametrize("tokens", ["all", "last"])
def test_padding_and_batch_split_change_nothing(tokens):
    model = tiny_model("llama")
    full = score_layers(model, [batch()], tokens)
    variants = {
        "one by one": [batch((length,)) for length in LENGTHS],
        "in two": [batch(LENGTHS[:1]), batch(LENGTHS[1:])],
        "more padding": [batch(width=40)],
        "left padding": [batch(side="left")],
    }
    for name, batches in variants.items():
        scores = score_layers(model, batches, tokens)
        assert scores.num_positions == full.num_positions, name
        torch.testing.assert_close(scores.cosine, full.cosine, atol=1e-4, rtol=1e-6, msg=name)
        torch.testing.assert_close(scores.block_influence(), full.block_influence(), atol=1e-6, rtol=0, msg=name)


def test_last_scores_the_last_token_of_each_row():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    assert scored_positions(mask, "last").tolist() == [
        [False, False, True, False],
        [False, False, False, True],
        [True, False, False, False],
    ]


def test_resumed_scores_equal_uninterrupted_ones():
    model, batches = tiny_model("llama"), [batch((length,)) for length in LENGTHS]
    full = score_layers(model, batches)
    partial = score_layers(model, batches[:2])
    resumed = score_layers(model, batches[partial.num_batches :], scores=partial)
    assert torch.equal(resumed.angle, full.angle)
    assert torch.equal(resumed.cosine, full.cosine)
    assert (resumed.num_positions, resumed.num_batches) == (full.num_positions, full.num_batches)


def test_the_lm_head_does_not_run():
    model = tiny_model("llama")
    model.lm_head.forward = None
    score_layers(model, [batch()])


def test_no_hook_remains():
    model = tiny_model("llama")
    score_layers(model, [batch()])
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in decoder_blocks(model))


def test_an_unknown_choice_of_tokens_raises():
    with pytest.raises(InputError, match="tokens is 'llama'; allowed: all, last"):
        scored_positions(torch.ones(1, 2), "llama")


@pytest.mark.parametrize(
    ("weight", "place"),
    [
        ("model.embed_tokens", "the embedding"),
        ("model.layers.0.mlp.up_proj", "block 0"),
        ("model.layers.2.mlp.up_proj", "block 2"),
    ],
)
def test_numbers_that_are_none_are_refused_and_their_block_is_named(weight, place):
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_submodule(weight).weight.fill_(float("nan"))
    with pytest.raises(InputError, match=f"the output of {place} is NaN or infinite on the calibration texts"):
        score_layers(model, [batch()])
