"""What a teacher says about N positions, in the two forms that a loss reads."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trl_prune.losses.lm_head import LMHead


@dataclass(frozen=True)
class HeadTarget:
    """A full distribution at each position, told by the states it is computed from; logits never exist whole.

    Attributes:
        hidden: final states, post-norm, `(N, teacher hidden_size)`.
        head: the teacher's; ids beyond the student's vocabulary are left out and the mass renormalised.
    """

    hidden: Tensor
    head: LMHead


@dataclass(frozen=True)
class SparseTarget:
    """Probabilities of some ids at each position.

    Attributes:
        ids: the ids, `(N, k)` int64.
        probs: their probabilities, `(N, k)` float32. A sample of fewer ids is padded with any ids at probability 0; a
            row with a tail has k different ids.
        tail: the mass that all other ids hold together, `(N,)` float32. None where `probs` sums to 1: a sample, whose
            expected gradient is the full distribution's.
        temperature: what the teacher's logits were divided by.
        vocabulary: how many ids it knows; None for as many as the student.
    """

    ids: Tensor
    probs: Tensor
    tail: Tensor | None = None
    temperature: float = 1.0
    vocabulary: int | None = None


TeacherTarget = HeadTarget | SparseTarget


def on_device(target: TeacherTarget, device: torch.device) -> TeacherTarget:
    """Return a target with its tensors on a device."""
    if isinstance(target, HeadTarget):
        return HeadTarget(target.hidden.to(device), target.head.each(lambda part: part.to(device)))
    named = {entry.name: getattr(target, entry.name) for entry in fields(target)}
    return replace(target, **{name: part.to(device) for name, part in named.items() if isinstance(part, Tensor)})
