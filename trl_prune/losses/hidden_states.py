"""How far a student's intermediate states are from its teacher's."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


# The states that arXiv 2407.14679 compares (appendix A.6): embeddings, attention, MLP input and block output.
STATES = ("embedding", "block", "mlp", "attention")


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Return one minus the cosine of states, `(N,)`, for states of `(N, hidden_size)`."""
    return 1 - functional.cosine_similarity(student.float(), teacher.float(), dim=-1)


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of states, `(N,)`, for states of `(N, hidden_size)`."""
    return (student.float() - teacher.float()).square().mean(-1)


# To add a distance: a function and an entry.
HIDDEN_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine, "mse": mse}


def attention_relation(student: Tensor, teacher: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """Return the KL between the models' relations among queries, among keys or among values (arXiv 2012.15828).

    A relation is the scaled dot product of all states of one kind with each other, normalised over the positions that
    each may attend to. The number of relation heads is free, so that models of different widths compare.

    Args:
        student: queries, keys or values, heads joined, `(batch, tokens, width)`.
        teacher: the same of the teacher, `(batch, tokens, teacher width)`.
        allowed: which positions (last) each position attends to, `(batch, tokens, tokens)` bool.
        heads: relation heads; divides both widths.

    Returns:
        The mean over heads, `(batch, tokens)`.
    """
    ours, theirs = (_relation(states, allowed, heads) for states in (student, teacher))
    gap = torch.where(allowed[:, None], theirs - ours, 0)
    return (theirs.exp() * gap).sum(-1).mean(1)


def _relation(states: Tensor, allowed: Tensor, heads: int) -> Tensor:
    apart = states.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = apart @ apart.transpose(-1, -2) / math.sqrt(apart.shape[-1])
    return scores.masked_fill(~allowed[:, None], -torch.inf).log_softmax(-1)
