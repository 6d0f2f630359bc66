"""Oracle: TRL's own fused forward on the same model, whose fields SFTTrainer reads."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.conftest import tiny_model
from trl_prune.losses.head_block import Objective
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.kd.student_forward import DistillationBatch, patch_forward, without_cross_entropy


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, (3, 20), generator=generator)
    labels = ids.masked_fill(torch.rand(3, 20, generator=generator) < 0.5, -100)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    labels[1, 15:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "granite", "cohere", "opt"])
def test_cross_entropy_and_what_sft_logs_are_trls(family):
    model, inputs = tiny_model(family), batch()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    theirs = model(**inputs, fused_lm_head=True)
    (-theirs.log_probs.sum()).backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    patch_forward(model)
    ours = model(**inputs, fused_lm_head=True, distillation=DistillationBatch(None, Objective(ce_weight=1.0)))
    for name in ("log_probs", "entropy", "is_top1", "label_mask"):
        told = getattr(theirs, name) * theirs.label_mask
        torch.testing.assert_close(
            getattr(ours, name), told.detach().to(getattr(ours, name).dtype), atol=1e-4, rtol=1e-4
        )
    ours.objective.backward()
    for name, slope in wanted.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, slope, atol=2e-4, rtol=2e-3)
    assert not without_cross_entropy(ours).log_probs.any()


@torch.inference_mode()
def test_other_calls_are_left_alone():
    model, inputs = tiny_model("llama"), batch()
    wanted = model(**inputs)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    fused = model(**inputs, fused_lm_head=True)
    patch_forward(model)
    model(**inputs, fused_lm_head=True, distillation=DistillationBatch(None, Objective(ce_weight=1.0)))
    assert torch.equal(model(**inputs).logits, wanted.logits)
    assert torch.equal(model(**inputs, fused_lm_head=True).log_probs, fused.log_probs)
    assert not model.base_model._forward_hooks


def test_nothing_to_learn_reaches_every_weight_with_a_zero():
    model, inputs = tiny_model("llama"), batch()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    patch_forward(model)
    target = HeadTarget(torch.zeros(0, 32), LMHead(model.lm_head.weight.detach()))
    output = model(**inputs, fused_lm_head=True, distillation=DistillationBatch(target, Objective()))
    output.objective.backward()
    assert output.objective == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in model.parameters())
