"""Oracles: direct float64 formulas over transformers' own hidden states, and invariance to batching."""

import math

import pytest
import torch

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES
from trl_prune.pruning.importance.layers import LayerScores, layers_skipped, mean_loss, score_layers, wanted_positions
from trl_prune.pruning.importance.observation import decoder_blocks


@torch.inference_mode()
def direct(model, lengths, tokens):
    """Angle and cosine of all pairs, averaged, one unpadded text at a time; the last state taken before the norm."""
    angle, cosine, count = 0, 0, 0
    last = []
    handle = decoder_blocks(model)[-1].register_forward_hook(lambda _, __, output: last.append(output))
    for length in lengths:
        one = batch((length,))
        states = model(**one, output_hidden_states=True, use_cache=False).hidden_states[:-1]
        output = last.pop() if isinstance(last[-1], torch.Tensor) else last.pop()[0]
        stacked = torch.stack([*states, output])[:, 0].double()  # (L + 1, tokens, hidden)
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
    angle, cosine = direct(model, LENGTHS, tokens)
    distances = scores.angular_distance()
    off = ~torch.eye(len(angle), dtype=torch.bool)
    torch.testing.assert_close(distances[off], angle[off], atol=2e-4, rtol=0)
    torch.testing.assert_close(scores.block_influence(), 1 - cosine.diagonal(1), atol=1e-5, rtol=0)
    assert distances.min() >= 0
    assert distances.max() <= 1


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_can_be_observed(family):
    scores = score_layers(tiny_model(family), [batch()])
    assert scores.positions == sum(LENGTHS)
    assert scores.num_layers == 4
    assert (scores.block_influence() > 1e-6).all()


@pytest.mark.parametrize("tokens", ["all", "last"])
def test_padding_and_batch_split_change_nothing(tokens):
    model = tiny_model("llama")
    whole = score_layers(model, [batch()], tokens)
    variants = {
        "one by one": [batch((length,)) for length in LENGTHS],
        "in two": [batch(LENGTHS[:1]), batch(LENGTHS[1:])],
        "more padding": [batch(width=40)],
        "left padding": [batch(side="left")],
    }
    for name, batches in variants.items():
        scores = score_layers(model, batches, tokens)
        assert scores.positions == whole.positions, name
        torch.testing.assert_close(scores.cosine, whole.cosine, atol=1e-4, rtol=1e-6, msg=name)
        torch.testing.assert_close(scores.block_influence(), whole.block_influence(), atol=1e-6, rtol=0, msg=name)


def test_last_means_each_rows_last_token():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    assert wanted_positions(mask, "last").tolist() == [
        [False, False, True, False],
        [False, False, False, True],
        [True, False, False, False],
    ]


def test_resumed_equals_unbroken(tmp_path):
    model, batches = tiny_model("llama"), [batch((length,)) for length in LENGTHS]
    whole = score_layers(model, batches)
    score_layers(model, batches[:2], after_batch=lambda scores: scores.save(tmp_path / "partial"))
    partial = LayerScores.load(tmp_path / "partial")
    resumed = score_layers(model, batches[partial.batches :], scores=partial)
    assert torch.equal(resumed.angle, whole.angle)
    assert torch.equal(resumed.cosine, whole.cosine)
    assert (resumed.positions, resumed.batches) == (whole.positions, whole.batches)


def test_equal_scores_are_equal_files(tmp_path):
    scores = score_layers(tiny_model("llama"), [batch()])
    for name in range(8):
        scores.save(tmp_path / str(name))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_head_never_runs():
    model = tiny_model("llama")
    model.lm_head.forward = None
    score_layers(model, [batch()])


def test_no_hook_stays():
    model = tiny_model("llama")
    score_layers(model, [batch()])
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in decoder_blocks(model))


@torch.inference_mode()
def test_skipping_nothing_is_the_model_and_blocks_come_back():
    model = tiny_model("llama")
    wanted = model(**batch()).logits
    with layers_skipped(model, [1]):
        assert not torch.allclose(model(**batch(), use_cache=False).logits, wanted)
    assert torch.equal(model(**batch()).logits, wanted)


def test_mean_loss_is_the_models_own():
    model, one = tiny_model("llama"), batch()
    labels = one["input_ids"].masked_fill(one["attention_mask"] == 0, -100)
    assert mean_loss(model, [one]) == pytest.approx(model(**one, labels=labels).loss.item(), abs=1e-5)
    split = mean_loss(model, [batch((length,)) for length in LENGTHS])
    assert split == pytest.approx(mean_loss(model, [one]), abs=1e-5)


def test_positions_of_another_word_are_refused():
    with pytest.raises(InputError, match="tokens is 'llama'; allowed: all, last"):
        wanted_positions(torch.ones(1, 2), "llama")
