"""Oracles: the definitions in float64, and the relation of one position at a time."""

import pytest
import torch

from trl_prune.losses.hidden_states import HIDDEN_LOSSES, attention_relation


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", HIDDEN_LOSSES)
def test_the_distance_of_states_from_themselves_is_zero(name):
    states = random(5, 8)
    assert HIDDEN_LOSSES[name](states, states).abs().max() < 1e-6
    assert HIDDEN_LOSSES[name](states, random(5, 8, seed=1)).min() > 0.01


def test_the_distances_equal_the_definitions():
    a, b = random(5, 8), random(5, 8, seed=1)
    expected = 1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    torch.testing.assert_close(HIDDEN_LOSSES["cosine"](a, b).double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(HIDDEN_LOSSES["mse"](a, b).double(), ((a - b) ** 2).mean(-1), atol=1e-6, rtol=1e-5)


def test_relations_equal_the_definition_at_each_position():
    student, teacher = random(2, 6, 8).requires_grad_(), random(2, 6, 12, seed=1)
    allowed = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 6, 6)
    values = attention_relation(student, teacher, allowed, heads=2)

    def relation(states, batch, head, row):
        width = states.shape[-1] // 2
        part = states[batch, :, head * width : (head + 1) * width].float()
        return ((part[row] @ part[: row + 1].T) / width**0.5).log_softmax(-1)

    for batch in range(2):
        for row in range(6):
            per_head = []
            for head in range(2):
                log_p, log_q = relation(student, batch, head, row), relation(teacher, batch, head, row)
                per_head.append((log_q.exp() * (log_q - log_p)).sum())
            torch.testing.assert_close(values[batch, row], torch.stack(per_head).mean(), atol=1e-5, rtol=1e-4)
    values.sum().backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() > 0
