"""KDTrainer passes; trainers with each of the errors found in other implementations fail, and the check names it."""

import pytest
import torch
from datasets import Dataset

from trl_prune import KDConfig, KDTrainer
from trl_prune.losses import distill_head, head_block
from trl_prune.trainers.conformance import CHECKS, Case, ConformanceError


def build(case: Case, trainer_class: type[KDTrainer] = KDTrainer) -> KDTrainer:
    args = KDConfig(**case.arguments, temperature=case.temperature)
    rows = Dataset.from_list(list(case.rows))
    return trainer_class(str(case.student), args, train_dataset=rows, teacher_model=str(case.teacher))


@pytest.mark.parametrize("check", CHECKS)
def test_kd_trainer_conforms(check, tmp_path):
    CHECKS[check](build, tmp_path)


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


class TemperatureIgnored(KDTrainer):
    def _distillation_batch(self, inputs):
        self.args.temperature = 1.0
        return super()._distillation_batch(inputs)


class OnlyLossSquared(KDTrainer):
    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        divided = loss / self.args.temperature**2
        return loss.detach() + divided - divided.detach()


@pytest.mark.parametrize(
    ("check", "trainer_class", "message"),
    [
        ("gradient", Detached, "the gradient is zero"),
        ("shift", Unshifted, "labels are not shifted"),
        ("mask", Unmasked, "masked labels are learned"),
        ("mask", TwiceDivided, "times as long"),
        ("accumulation", MeanOfMeans, "divide the loss by num_items_in_batch"),
        ("temperature", TemperatureIgnored, "the temperature does not reach the loss"),
        ("temperature", OnlyLossSquared, "only one of them is multiplied by the square of the temperature"),
    ],
)
def test_errors_are_found_and_named(check, trainer_class, message, tmp_path):
    with pytest.raises(ConformanceError, match=message):
        CHECKS[check](lambda case: build(case, trainer_class), tmp_path)


def test_a_padded_vocabulary_that_keeps_its_mass_is_found(tmp_path, monkeypatch):
    """The teacher is normalised over its padding, which is cut off afterwards."""
    normalise = head_block._normalise

    def normalise_and_truncate(logits):
        distribution = normalise(logits)
        return distribution._replace(
            probs=distribution.probs[:, :64].contiguous(), log_probs=distribution.log_probs[:, :64].contiguous()
        )

    monkeypatch.setattr(distill_head, "_shared_vocab_size", lambda args: len(args.target.head.weight))
    monkeypatch.setattr(head_block, "_normalise", normalise_and_truncate)
    with pytest.raises(ConformanceError, match="a padded teacher is not that over the shared ids"):
        CHECKS["vocabulary"](build, tmp_path)
