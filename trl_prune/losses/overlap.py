"""How much of two models' next-token distributions overlaps: what speculative decoding accepts of a draft.

A token that the draft samples is accepted with probability sum_v min(p_v, q_v) (2211.17192, section 3.2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.losses.paired_logits import logits_in_blocks
from trl_prune.losses.targets import HeadTarget


# Of the fields of `HeadOverlap`.
DTYPES = (torch.float32, torch.bool, torch.float32, torch.float32)


class HeadOverlap(NamedTuple):
    """All `(N,)`; float32, and not finite where the logits of either model are not.

    Attributes:
        overlap: sum over ids of the smaller of both probabilities, 0..1.
        agrees: whether both models have the same likeliest id, bool.
        log_probs: log-probability of each label by the target model.
        draft_log_probs: log-probability of each label by the draft, -inf for ids that it does not have.
    """

    overlap: Tensor
    agrees: Tensor
    log_probs: Tensor
    draft_log_probs: Tensor


@torch.inference_mode()
def overlap_heads(target: HeadTarget, draft: HeadTarget, labels: Tensor, temperature: float = 1.0) -> HeadOverlap:
    """Return the overlap of two models at N positions, without full logits of either.

    Args:
        target: the target model's final states, `(N, hidden_size)`, and head.
        draft: the draft's, on the same device. Where its vocabulary has another size, each model keeps its own
            probabilities, and ids that only one has overlap with nothing.
        labels: the ids whose log-probabilities are returned, `(N,)`, all in the target's vocabulary.
        temperature: divides both models' logits, above 0.
    """
    sides, count, device = [target, draft], len(labels), labels.device
    output = HeadOverlap(*(torch.empty(count, device=device, dtype=dtype) for dtype in DTYPES))
    for block, logits in logits_in_blocks(sides, [len(side.head.weight) for side in sides]):
        for full, part in zip(output, _overlap_block(logits, labels[block], temperature), strict=True):
            full[block] = part
    return output


def _overlap_block(logits: Sequence[Tensor], labels: Tensor, temperature: float) -> HeadOverlap:
    """Return a block's overlap; the logits are overwritten."""
    shared = min(part.shape[1] for part in logits)
    agrees = logits[0].argmax(1) == logits[1].argmax(1)
    probs, label_log_probs = [], []
    for part in logits:
        part.div_(temperature)
        probs.append(part.softmax(1))
        known = labels.clamp(max=part.shape[1] - 1)[:, None]
        log_z = part.amax(1) - probs[-1].amax(1).log()  # without a second pass of exponentials
        log_probs = part.gather(1, known)[:, 0] - log_z
        label_log_probs.append(log_probs.masked_fill(labels >= part.shape[1], float("-inf")))
    overlap = torch.minimum(probs[0][:, :shared], probs[1][:, :shared]).sum(1).clamp_(max=1)
    return HeadOverlap(overlap, agrees, *label_log_probs)
