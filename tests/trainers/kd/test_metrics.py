"""Means over every learned token are those over all batches in one."""

import pytest
import torch
from accelerate import Accelerator

from trl_prune.trainers.kd.metrics import SUMMED, Totals, sums_of
from trl_prune.trainers.kd.student_forward import DistilledOutput


def answer(mask, seed):
    """What the head says of a batch, with zeros where nothing is learned."""
    generator = torch.Generator().manual_seed(seed)
    told = torch.rand(4, *mask.shape, generator=generator) * mask
    return DistilledOutput(
        objective=told[1].sum(),
        log_probs=-told[0],
        divergence=told[1],
        kl=told[2],
        agrees=told[3] > 0.5,
        label_mask=mask,
        hidden=told[0].sum() * 2,
    )


MASKS = [torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]).bool(), torch.tensor([[0, 1, 0, 0], [1, 1, 1, 1]]).bool()]


def test_means_weigh_tokens_not_batches():
    answers = [answer(mask, seed) for seed, mask in enumerate(MASKS)]
    totals = Totals()
    for told in answers:
        totals.add(sums_of(told), Accelerator(cpu=True))
    count = sum(int(mask.sum()) for mask in MASKS)
    wanted = {
        "ce_loss": -sum(told.log_probs.sum() for told in answers) / count,
        "kd_loss": sum(told.divergence.sum() for told in answers) / count,
        "hidden_loss": sum(told.hidden for told in answers) / count,
        "kl": sum(told.kl.sum() for told in answers) / count,
        "top1_agreement": sum(told.agrees.sum() for told in answers) / count,
    }
    assert list(wanted) == list(SUMMED)
    assert totals.take() == pytest.approx({name: float(value) for name, value in wanted.items()})


def test_taken_means_are_gone():
    totals = Totals()
    assert totals.take() == {}
    totals.add(sums_of(answer(MASKS[0], 0)), Accelerator(cpu=True))
    assert totals.take()
    assert totals.take() == {}


def test_nothing_learned_is_zero_not_a_division():
    totals = Totals()
    totals.add(sums_of(answer(torch.zeros(2, 4).bool(), 0)), Accelerator(cpu=True))
    assert set(totals.take().values()) == {0.0}
