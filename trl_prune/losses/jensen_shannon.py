"""The Jensen-Shannon divergence of two models at many positions, without a gradient and without full logits.

The divergence of `distill_head` is written for gradients; its value has the rounding of differences of logarithms,
about 2e-6 even of equal models.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.losses.divergences import row_dot
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.paired_logits import logits_in_blocks
from trl_prune.losses.targets import HeadTarget


TINY = torch.finfo(torch.float32).tiny


class HeadComparison(NamedTuple):
    """Both `(N,)` float32, and not finite where logits are not.

    Attributes:
        divergence: the Jensen-Shannon divergence in nats, 0..ln 2; 0 without a target.
        log_probs: log-probability of each label by the first model, at temperature 1.
    """

    divergence: Tensor
    log_probs: Tensor


@torch.inference_mode()
def compare_heads(
    hidden: Tensor, head: LMHead, labels: Tensor, target: HeadTarget | None = None, temperature: float = 1.0
) -> HeadComparison:
    """Return the divergence of two models at N positions, and the log-probabilities of the first.

    Args:
        hidden: the first model's final states, `(N, hidden_size)`.
        head: its LM head.
        labels: the ids whose log-probabilities are returned, `(N,)`.
        target: the second model's states and head, on the same device; None for log-probabilities alone. Of two
            vocabularies the ids that both have are compared, each model's probabilities renormalised over them.
        temperature: divides both models' logits in the divergence.
    """
    sides = [HeadTarget(hidden, head), *([] if target is None else [target])]
    sizes = [len(side.head.weight) for side in sides]
    output = HeadComparison(*(torch.zeros(len(hidden), device=head.weight.device) for _ in range(2)))
    for block, logits in logits_in_blocks(sides, [sizes[0], min(sizes)][: len(sides)]):
        for full, part in zip(output, _compare_block(logits, labels[block], temperature), strict=True):
            full[block] = part
    return output


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of probabilities `(n, V)`, `(n,)`, symmetric and 0 for equal ones.

    The logarithm of a ratio is 0 where both are equal; a difference of logarithms would leave their rounding.
    """
    mixture = (p + q).div_(2).clamp_min_(TINY)
    p_divergence = row_dot(p, (p / mixture).clamp_min_(TINY).log_())
    q_divergence = row_dot(q, torch.div(q, mixture, out=mixture).clamp_min_(TINY).log_())
    return (p_divergence + q_divergence).div_(2).clamp_(0, math.log(2))


def _compare_block(logits: Sequence[Tensor], labels: Tensor, temperature: float) -> tuple[Tensor | float, Tensor]:
    """Return a block's divergence and log-probabilities; the logits are overwritten."""
    first, label_logits = logits[0], logits[0].gather(1, labels[:, None])[:, 0]
    if len(logits) == 1:
        return 0.0, label_logits - first.logsumexp(1)
    if temperature == 1 and first.shape == logits[1].shape:
        p = first.softmax(1)
        log_z = first.amax(1) - p.amax(1).log()  # without a second pass of exponentials
    else:
        log_z = first.logsumexp(1)
        p = _tempered(first[:, : logits[1].shape[1]], temperature)
    return jensen_shannon(p, _tempered(logits[1], temperature)), label_logits - log_z


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    return logits.div_(temperature).softmax(1)
