"""Oracle: TRL's own head on all positions; loss, gradients and metrics must be the same."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.conftest import tiny_model
from trl_prune.trainers.self_distill.answer_positions import skip_masked_positions


OUTPUTS = ("log_probs", "entropy", "is_top1")


def batch(masked=0.6):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, (3, 20), generator=generator)
    labels = ids.masked_fill(torch.rand(3, 20, generator=generator) < masked, -100)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    labels[1, 15:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def told(model, inputs):
    output = model(**inputs, fused_lm_head=True)
    (-output.log_probs.sum() + 0.1 * output.entropy.sum()).backward()
    sums = {name: getattr(output, name).float().sum().item() for name in (*OUTPUTS, "label_mask")}
    grads = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return sums, grads, output


def both(family, inputs):
    model = tiny_model(family)
    add_fused_lm_head(model, outputs=OUTPUTS)
    theirs = told(model, inputs)
    skip_masked_positions(model)
    return theirs, told(model, inputs)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite", "opt"])
def test_sums_and_gradients_are_trls(family):
    theirs, ours = both(family, batch())
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_only_the_answers_are_scored():
    inputs = batch()
    _, ours = both("llama", inputs)
    assert ours[2].log_probs.shape == (1, int((inputs["labels"][:, 1:] != -100).sum()))


def test_nothing_to_learn_is_a_zero_with_a_gradient():
    inputs = batch() | {"labels": torch.full((3, 20), -100)}
    theirs, ours = both("llama", inputs)
    assert ours[0]["log_probs"] == theirs[0]["log_probs"] == 0
    assert ours[2].loss.requires_grad


@torch.inference_mode()
def test_other_calls_and_hooks_are_left_alone():
    model, inputs = tiny_model("llama"), batch()
    wanted = model(**inputs)
    add_fused_lm_head(model, outputs=OUTPUTS)
    skip_masked_positions(model)
    model(**inputs, fused_lm_head=True)
    again = model(**inputs)
    assert torch.equal(again.logits, wanted.logits)
    assert torch.equal(again.loss, wanted.loss)
    assert not model.base_model._forward_hooks
    ids = inputs["input_ids"][:, :5]
    plain = tiny_model("llama").generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=4, do_sample=False), plain)
