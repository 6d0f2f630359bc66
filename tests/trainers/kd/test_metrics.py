"""Means over all learned tokens equal those of all batches in one."""

import pytest
import torch
from accelerate import Accelerator

from trl_prune.trainers.kd.metrics import METRICS, RunningMeans, metric_sums
from trl_prune.trainers.kd.student_forward import DistillationOutput


def random_output(mask, seed):
    """Return a student's output for a batch, with zeros where nothing is learned."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(4, *mask.shape, generator=generator) * mask
    return DistillationOutput(
        objective=values[1].sum(),
        log_probs=-values[0],
        divergence=values[1],
        kl=values[2],
        agrees=values[3] > 0.5,
        label_mask=mask,
        hidden_loss=values[0].sum() * 2,
    )


MASKS = [torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool(), torch.tensor([[0, 1, 0, 0], [1, 1, 1, 1]]).bool()]


def test_means_are_weighted_by_tokens_not_batches():
    outputs = [random_output(mask, seed) for seed, mask in enumerate(MASKS)]
    means = RunningMeans()
    for output in outputs:
        means.add(metric_sums(output), Accelerator(cpu=True))
    count = sum(int(mask.sum()) for mask in MASKS)
    expected = {
        "ce_loss": -sum(output.log_probs.sum() for output in outputs) / count,
        "kd_loss": sum(output.divergence.sum() for output in outputs) / count,
        "hidden_loss": sum(output.hidden_loss for output in outputs) / count,
        "kl": sum(output.kl.sum() for output in outputs) / count,
        "top1_agreement": sum(output.agrees.sum() for output in outputs) / count,
    }
    assert list(expected) == list(METRICS)
    assert means.pop() == pytest.approx({name: float(value) for name, value in expected.items()})


def test_means_are_since_the_last_call():
    means = RunningMeans()
    assert means.pop() == {}
    means.add(metric_sums(random_output(MASKS[0], 0)), Accelerator(cpu=True))
    assert means.pop()
    assert means.pop() == {}


def test_means_over_no_positions_are_zero():
    means = RunningMeans()
    means.add(metric_sums(random_output(torch.zeros(2, 4).bool(), 0)), Accelerator(cpu=True))
    assert set(means.pop().values()) == {0.0}
