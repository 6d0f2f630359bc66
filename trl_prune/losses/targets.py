"""The teacher's distributions at N positions, in the two forms that the loss accepts."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trl_prune.losses.lm_head import LMHead


@dataclass(frozen=True)
class HeadTarget:
    """Full distributions, given by the final states and the head that computes them; no full logits are stored.

    Attributes:
        hidden: final states after the last norm, `(N, teacher hidden_size)`.
        head: the teacher's head; ids beyond the student's vocabulary are dropped and the rest is renormalised.
    """

    hidden: Tensor
    head: LMHead


@dataclass(frozen=True)
class SparseTarget:
    """Probabilities of k ids at each position.

    Attributes:
        ids: the ids, `(N, k)` int64.
        probs: their probabilities, `(N, k)` float32. A sample of fewer ids is padded with any ids at probability 0; a
            row with a tail has k distinct ids.
        tail: the total probability of all other ids, `(N,)` float32. None where `probs` sums to 1: a sample, whose
            expected gradient equals that of the full distribution.
        temperature: the divisor of the teacher's logits.
        vocab_size: the teacher's; None for the student's.
    """

    ids: Tensor
    probs: Tensor
    tail: Tensor | None = None
    temperature: float = 1.0
    vocab_size: int | None = None


TeacherTarget = HeadTarget | SparseTarget


def to_device(target: TeacherTarget, device: torch.device) -> TeacherTarget:
    """Return a target with its tensors on a device."""
    if isinstance(target, HeadTarget):
        return HeadTarget(target.hidden.to(device), target.head.map(lambda tensor: tensor.to(device)))
    values = {field.name: getattr(target, field.name) for field in fields(target)}
    return replace(target, **{name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)})
