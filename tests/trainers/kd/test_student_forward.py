"""The forward against TRL's own fused one on the same model, whose fields SFTTrainer reads."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.conftest import tiny_model
from trl_prune.losses.head_block import Objective
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.kd.output_recorder import without_cross_entropy
from trl_prune.trainers.kd.student_forward import DistillationBatch, patch_forward


FIELDS = ("log_probs", "entropy", "is_top1")
CROSS_ENTROPY = DistillationBatch(None, Objective(ce_weight=1.0))


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, (3, 20), generator=generator)
    labels = ids.masked_fill(torch.rand(3, 20, generator=generator) < 0.5, -100)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    labels[1, 15:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite", "cohere", "opt"])
def test_cross_entropy_and_logged_statistics_are_trls(family):
    model, inputs = tiny_model(family), batch()
    add_fused_lm_head(model, outputs=FIELDS)
    trl_output = model(**inputs, fused_lm_head=True)
    (-trl_output.log_probs.sum()).backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    patch_forward(model)
    output = model(**inputs, fused_lm_head=True, distillation=CROSS_ENTROPY)
    for name in (*FIELDS, "label_mask"):
        value = getattr(output, name)
        expected = (getattr(trl_output, name) * trl_output.label_mask).detach().to(value.dtype)
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)
    output.objective.backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=2e-4, rtol=2e-3)
    assert not without_cross_entropy(output).log_probs.any()


@torch.inference_mode()
def test_other_calls_are_not_changed():
    model, inputs = tiny_model("llama"), batch()
    logits = model(**inputs).logits
    add_fused_lm_head(model, outputs=FIELDS)
    fused = model(**inputs, fused_lm_head=True)
    patch_forward(model)
    model(**inputs, fused_lm_head=True, distillation=CROSS_ENTROPY)
    assert torch.equal(model(**inputs).logits, logits)
    assert torch.equal(model(**inputs, fused_lm_head=True).log_probs, fused.log_probs)
    assert not model.base_model._forward_hooks


def test_with_nothing_to_learn_every_weight_has_gradient_zero():
    model, inputs = tiny_model("llama"), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    add_fused_lm_head(model, outputs=FIELDS)
    patch_forward(model)
    target = HeadTarget(torch.zeros(0, 32), LMHead(model.lm_head.weight.detach()))
    output = model(**inputs, fused_lm_head=True, distillation=DistillationBatch(target, Objective()))
    output.objective.backward()
    assert output.objective == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())
