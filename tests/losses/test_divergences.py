"""Oracle: float64 autograd on the definitions."""

import pytest
import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.divergences import DIVERGENCES, Pair, divergence_of, row_dot


def logits(seed: int, rows: int = 7, vocab: int = 23) -> Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(student: Tensor, teacher: Tensor) -> Pair:
    log_p, log_q = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    shift = student.detach().logsumexp(-1) - teacher.logsumexp(-1)
    return Pair(log_p.exp(), log_p, log_q.exp(), log_q, shift)


def definition(name: str, student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    p, q = student.softmax(-1), teacher.softmax(-1)
    m = beta * q + (1 - beta) * p
    return {
        "forward_kl": lambda: (q * (q.log() - p.log())).sum(-1),
        "reverse_kl": lambda: (p * (p.log() - q.log())).sum(-1),
        "jsd": lambda: beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1),
        "mse": lambda: (student - teacher).square().mean(-1),
        "cosine": lambda: 1 - torch.nn.functional.cosine_similarity(p, q, dim=-1),
    }[name]()


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_values_and_gradients_are_those_of_the_definition(name, beta):
    student, teacher = logits(0).requires_grad_(), logits(1)
    wanted = definition(name, student, teacher, beta)
    (slope,) = torch.autograd.grad(wanted.sum(), student)
    values, ours = divergence_of(name, beta)(pair(student, teacher))
    torch.testing.assert_close(values, wanted.detach())
    torch.testing.assert_close(ours, slope)
    assert ours.abs().max() > 1e-3


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_model_does_not_diverge_from_itself(name):
    values, slope = divergence_of(name)(pair(logits(0), logits(0)))
    assert values.abs().max() < 1e-12
    assert slope.abs().max() < 1e-12


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_students_tensors_are_left_alone(name):
    told = pair(logits(0), logits(1))
    before = told.p.clone(), told.log_p.clone()
    divergence_of(name)(told)
    assert torch.equal(told.p, before[0])
    assert torch.equal(told.log_p, before[1])


def test_dots_of_rows():
    a, b = logits(0), logits(1)
    torch.testing.assert_close(row_dot(a, b), (a * b).sum(-1))


def test_unknown_names_and_shares_are_told():
    with pytest.raises(InputError, match="divergence is 'kl'; allowed: forward_kl, reverse_kl"):
        divergence_of("kl")
    with pytest.raises(InputError, match=r"jsd_beta is 1.0; wanted: a share between 0 \(forward_kl\)"):
        divergence_of("jsd", 1.0)


@pytest.mark.parametrize("gap", [60.0, 110.0, 1000.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_probabilities_below_what_float32_holds(name, gap):
    student = torch.tensor([[0.0, -1.0, -gap], [0.0, -gap, -gap]])
    told = pair(student, student.flip(0))
    wanted = definition(name, student.double(), student.flip(0).double(), 0.5)
    values, slope = divergence_of(name)(told)
    assert torch.isfinite(values).all()
    assert torch.isfinite(slope).all()
    if gap < 500:
        torch.testing.assert_close(values.double(), wanted, rtol=1e-4, atol=1e-5)
