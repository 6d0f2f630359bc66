"""Distances between the intermediate states of a student and its teacher."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


# The states that arXiv 2407.14679 compares (appendix A.6): embeddings, block output, MLP input and attention.
STATES = ("embedding", "block", "mlp", "attention")


# The squared norm of a state below which its error is no longer relative to it.
SMALLEST_NORM = 1e-12


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the cosine similarity of states `(N, hidden_size)`, `(N,)`."""
    return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of states `(N, hidden_size)`, `(N,)`."""
    return (student.float() - teacher.float()).square().mean(-1)


def relative_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared difference of states `(N, hidden_size)` as a share of the teacher's squared norm, `(N,)`."""
    teacher = teacher.float()
    return (student.float() - teacher).square().sum(-1) / teacher.square().sum(-1).clamp(min=SMALLEST_NORM)


# To add a distance: a function and an entry.
HIDDEN_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": cosine,
    "mse": mse,
    "relative_mse": relative_mse,
}


def attention_relation(student: Tensor, teacher: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """Return KL(teacher || student) of the self-attention relations of queries, keys or values (arXiv 2012.15828).

    A relation is the scaled dot product of all queries (or keys, or values) with each other, normalised over the
    positions that each may attend to. The number of relation heads is free, so that models of different widths can be
    compared.

    Args:
        student: queries, keys or values with heads joined, `(batch, tokens, width)`.
        teacher: the same of the teacher, `(batch, tokens, teacher width)`.
        allowed: which positions (last) each position attends to, `(batch, tokens, tokens)` bool.
        heads: number of relation heads; divides both widths.

    Returns:
        The mean over heads, `(batch, tokens)`.
    """
    student_log_probs, teacher_log_probs = (_relation(states, allowed, heads) for states in (student, teacher))
    log_ratio = torch.where(allowed[:, None], teacher_log_probs - student_log_probs, 0)
    return (teacher_log_probs.exp() * log_ratio).sum(-1).mean(1)


def _relation(states: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """Return log-probabilities of each position over the positions, `(batch, heads, tokens, tokens)`."""
    per_head = states.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = per_head @ per_head.transpose(-1, -2) / math.sqrt(per_head.shape[-1])
    return scores.masked_fill(~allowed[:, None], -torch.inf).log_softmax(-1)
