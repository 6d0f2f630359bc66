"""KDTrainer passes; a trainer with each of the peers' errors planted in it does not, and is told which it is."""

import pytest
import torch
from datasets import Dataset

from trl_prune import KDConfig, KDTrainer
from trl_prune.losses import distill_head, head_block
from trl_prune.trainers.conformance.case import Case
from trl_prune.trainers.conformance.checks import CHECKS, ConformanceError, check_processes


def build(case: Case, kind: type[KDTrainer] = KDTrainer) -> KDTrainer:
    args = KDConfig(**case.arguments, temperature=case.temperature)
    rows = Dataset.from_list(list(case.rows))
    return kind(str(case.student), args, train_dataset=rows, teacher_model=str(case.teacher))


@pytest.mark.parametrize("check", CHECKS)
def test_kd_trainer_conforms(check, tmp_path):
    CHECKS[check](build, tmp_path)


@pytest.mark.slow
def test_two_processes_conform(tmp_path):
    check_processes("tests.trainers.conformance.test_checks:build", tmp_path)


class Detached(KDTrainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        return loss.detach() + 0 * sum(weight.sum() for weight in self.model.parameters())


class Unshifted(KDTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        inputs["labels"] = torch.cat([inputs["labels"][:, :1], inputs["labels"][:, :-1]], 1)
        return super().compute_loss(model, inputs, *args, **kwargs)


class Unmasked(KDTrainer):
    def compute_loss(self, model, inputs, *_, **__):
        inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        return super().compute_loss(model, inputs, num_items_in_batch=(inputs["labels"][:, 1:] != -100).sum())


class MeanOfMeans(KDTrainer):
    def compute_loss(self, model, inputs, *_, **__):
        return super().compute_loss(model, inputs) / self.current_gradient_accumulation_steps


class TwiceDivided(KDTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch) / num_items_in_batch


class Untempered(KDTrainer):
    def _distillation_batch(self, inputs):
        self.args.temperature = 1.0
        return super()._distillation_batch(inputs)


class LossAloneSquared(KDTrainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        small = loss / self.args.temperature**2
        return loss.detach() + small - small.detach()


class ProcessesForgotten(KDTrainer):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) / self.accelerator.num_processes


def forgets_processes(case: Case) -> KDTrainer:
    return build(case, ProcessesForgotten)


@pytest.mark.parametrize(
    ("check", "planted", "told"),
    [
        ("gradient", Detached, "the gradient is zero"),
        ("shift", Unshifted, "labels are not shifted"),
        ("mask", Unmasked, "masked labels are learned"),
        ("mask", TwiceDivided, "times as long"),
        ("accumulation", MeanOfMeans, "wants dividing by num_items_in_batch"),
        ("temperature", Untempered, "it does not reach the loss"),
        ("temperature", LossAloneSquared, "only one of them has the temperature's square"),
    ],
)
def test_planted_errors_are_found_and_named(check, planted, told, tmp_path):
    with pytest.raises(ConformanceError, match=told):
        CHECKS[check](lambda case: build(case, planted), tmp_path)


def test_a_padded_vocabulary_that_keeps_its_mass_is_found(tmp_path, monkeypatch):
    """The teacher is normalised over its padding, and cut afterwards."""
    right = head_block._normalised

    def cut(logits):
        told = right(logits)
        return told._replace(probs=told.probs[:, :64].contiguous(), log_probs=told.log_probs[:, :64].contiguous())

    monkeypatch.setattr(distill_head, "_shared", lambda job: len(job.target.head.weight))
    monkeypatch.setattr(head_block, "_normalised", cut)
    with pytest.raises(ConformanceError, match="a padded teacher is not that over the shared ids"):
        CHECKS["vocabulary"](build, tmp_path)


@pytest.mark.slow
def test_processes_that_divide_twice_are_found(tmp_path):
    with pytest.raises(ConformanceError, match="two processes make another gradient than one: 0.5000 times as long"):
        check_processes("tests.trainers.conformance.test_checks:forgets_processes", tmp_path)
