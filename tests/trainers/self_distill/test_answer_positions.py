"""Oracle: TRL's fused head on all positions; loss, gradients and metrics must be the same."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.conftest import tiny_model
from trl_prune.losses.positions import MASKED
from trl_prune.trainers.self_distill.answer_positions import skip_masked_positions


OUTPUTS = ("log_probs", "entropy", "is_top1")


def batch(masked_share=0.6):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, (3, 20), generator=generator)
    labels = ids.masked_fill(torch.rand(3, 20, generator=generator) < masked_share, MASKED)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    labels[1, 15:] = MASKED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def sums_and_gradients(model, inputs):
    output = model(**inputs, fused_lm_head=True)
    (-output.log_probs.sum() + 0.1 * output.entropy.sum()).backward()
    sums = {name: getattr(output, name).float().sum().item() for name in (*OUTPUTS, "label_mask")}
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return sums, gradients, output


def without_and_with_skipping(family, inputs):
    model = tiny_model(family)
    add_fused_lm_head(model, outputs=OUTPUTS)
    expected = sums_and_gradients(model, inputs)
    skip_masked_positions(model)
    return expected, sums_and_gradients(model, inputs)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite", "opt"])
def test_sums_and_gradients_equal_those_of_trl(family):
    (expected_sums, expected_gradients, _), (sums, gradients, _) = without_and_with_skipping(family, batch())
    assert sums == pytest.approx(expected_sums, rel=1e-4)
    for name, expected in expected_gradients.items():
        torch.testing.assert_close(gradients[name], expected, atol=1e-4, rtol=1e-3)


def test_only_labelled_positions_are_scored():
    inputs = batch()
    _, (_, _, output) = without_and_with_skipping("llama", inputs)
    assert output.log_probs.shape == (1, int((inputs["labels"][:, 1:] != MASKED).sum()))


def test_a_batch_without_labels_gives_zero_with_a_gradient():
    inputs = batch() | {"labels": torch.full((3, 20), MASKED)}
    (expected_sums, _, _), (sums, _, output) = without_and_with_skipping("llama", inputs)
    assert sums["log_probs"] == expected_sums["log_probs"] == 0
    assert output.loss.requires_grad


@torch.inference_mode()
def test_calls_without_the_fused_head_are_unchanged_and_no_hook_is_left():
    model, inputs = tiny_model("llama"), batch()
    expected = model(**inputs)
    add_fused_lm_head(model, outputs=OUTPUTS)
    skip_masked_positions(model)
    model(**inputs, fused_lm_head=True)
    output = model(**inputs)
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.loss, expected.loss)
    assert not model.base_model._forward_hooks
    ids = inputs["input_ids"][:, :5]
    expected = tiny_model("llama").generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), expected)
