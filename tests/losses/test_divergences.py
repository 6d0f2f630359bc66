"""Oracle: float64 autograd on the definitions."""

import pytest
import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.divergences import DIVERGENCES, DistributionPair, get_divergence, row_dot


def logits(seed: int, rows: int = 7, vocab_size: int = 23) -> Tensor:
    return 3 * torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_of(student: Tensor, teacher: Tensor) -> DistributionPair:
    log_p, log_q = student.detach().log_softmax(-1), teacher.log_softmax(-1)
    shift = student.detach().logsumexp(-1) - teacher.logsumexp(-1)
    return DistributionPair(log_p.exp(), log_p, log_q.exp(), log_q, shift)


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
def test_values_and_gradients_equal_the_definition(name, beta):
    student, teacher = logits(0).requires_grad_(), logits(1)
    expected = definition(name, student, teacher, beta)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), student)
    values, gradient = get_divergence(name, beta)(pair_of(student, teacher))
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(gradient, expected_gradient)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_model_does_not_diverge_from_itself(name):
    values, gradient = get_divergence(name)(pair_of(logits(0), logits(0)))
    assert values.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_students_tensors_are_not_overwritten(name):
    pair = pair_of(logits(0), logits(1))
    p, log_p = pair.p.clone(), pair.log_p.clone()
    get_divergence(name)(pair)
    assert torch.equal(pair.p, p)
    assert torch.equal(pair.log_p, log_p)


def test_row_dot():
    a, b = logits(0), logits(1)
    torch.testing.assert_close(row_dot(a, b), (a * b).sum(-1))


def test_unknown_names_and_weights_out_of_range_are_refused():
    with pytest.raises(InputError, match="divergence is 'kl'; allowed: forward_kl, reverse_kl"):
        get_divergence("kl")
    with pytest.raises(InputError, match=r"jsd_beta is 1.0; wanted: a weight between 0 \(forward_kl\)"):
        get_divergence("jsd", 1.0)


@pytest.mark.parametrize("gap", [60.0, 110.0, 1000.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_probabilities_that_underflow_float32_give_finite_values(name, gap):
    student = torch.tensor([[0.0, -1.0, -gap], [0.0, -gap, -gap]])
    pair = pair_of(student, student.flip(0))
    expected = definition(name, student.double(), student.flip(0).double(), 0.5)
    values, gradient = get_divergence(name)(pair)
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()
    if gap < 500:
        torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-5)
