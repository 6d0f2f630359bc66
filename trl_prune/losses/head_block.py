"""What a block of logits says: its part of the loss, what SFT logs, and the gradient.

A block is a few rows that stay in the cache. Which rows, and the products with the heads, are `distill_head`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.losses.divergences import Pair, divergence_of, forward_kl, row_dot
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import SparseTarget


TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Objective:
    """What is minimised at each position: `ce_weight * cross-entropy + kd_weight * divergence`.

    Attributes:
        divergence: a key of `DIVERGENCES`.
        jsd_beta: the teacher's share in the mixture of `jsd`.
        temperature: divides both models' logits in the divergence.
        temperature_squared: whether the divergence is multiplied by the temperature's square, so that its gradient
            keeps its size (arXiv 1503.02531, section 2).
        top_k: compare the teacher's k likeliest ids and the mass of all others; the whole vocabulary where None.
        kd_weight: weight of the divergence.
        ce_weight: weight of the cross-entropy; at 0 its gradient is not computed.
        dynamic_fine_tuning: whether the cross-entropy of a token is weighted by its probability (arXiv 2508.05629).
    """

    divergence: str = "forward_kl"
    jsd_beta: float = 0.5
    temperature: float = 1.0
    temperature_squared: bool = True
    top_k: int | None = None
    kd_weight: float = 1.0
    ce_weight: float = 0.0
    dynamic_fine_tuning: bool = False

    @property
    def divergence_scale(self) -> float:
        """The factor on the divergence."""
        return self.temperature**2 if self.temperature_squared else 1.0


class HeadOutput(NamedTuple):
    """What a pass gives; all but `loss` are without gradient and `(N,)`.

    Attributes:
        loss: the objective, summed over the positions.
        log_probs: log-probability of each label.
        entropy: entropy of the student's distribution.
        is_top1: whether the label is the student's likeliest id.
        divergence: the divergence, with the temperature's square where asked for; 0 where there is no target.
        kl: KL(teacher || student) at the temperature of the divergence; told where no gradient is wanted, or where it
            is the divergence.
        agrees: whether both models find the same id likeliest; told where no gradient is wanted.
    """

    loss: Tensor
    log_probs: Tensor
    entropy: Tensor
    is_top1: Tensor
    divergence: Tensor
    kl: Tensor
    agrees: Tensor


class _Distribution(NamedTuple):
    probs: Tensor
    log_probs: Tensor
    log_z: Tensor
    top: Tensor  # log-probability of the likeliest id


def _normalised(logits: Tensor) -> _Distribution:
    """Return the distribution of logits, which are overwritten by their log-probabilities.

    The log-partition comes out of the largest logit and the largest probability: no second pass of exponentials.
    """
    probs, largest = torch.softmax(logits, 1), logits.amax(1)
    log_z = largest - probs.amax(1).log_()
    return _Distribution(probs, logits.sub_(log_z[:, None]), log_z, largest - log_z)


class Task(NamedTuple):
    """What is asked of every block.

    Attributes:
        objective: what to minimise.
        head: the student's head, for its scale and bound.
        learns: whether a gradient is wanted.
    """

    objective: Objective
    head: LMHead
    learns: bool


def compare_block(
    task: Task, logits: Tensor, teacher: Tensor | SparseTarget | None, labels: Tensor
) -> tuple[HeadOutput, Tensor | None]:
    """Return a block's values, and the loss's gradient with respect to `hidden @ weight.T + bias`.

    Args:
        task: what is asked.
        logits: the student's, `(n, V)` float32; overwritten.
        teacher: the teacher's logits of the ids both have, `(n, <= V)`, overwritten too; or what was kept of them.
        labels: the ids to predict, `(n,)`.
    """
    objective, student = task.objective, _normalised(logits)
    log_probs = student.log_probs.gather(1, labels[:, None])[:, 0]
    entropy = -row_dot(student.probs, student.log_probs)
    weights = log_probs.exp() if objective.dynamic_fine_tuning else torch.ones_like(log_probs)
    weights *= objective.ce_weight
    told = _compare(student, teacher, task)
    loss = objective.kd_weight * told.values.sum() - (weights * log_probs).sum()
    output = HeadOutput(loss, log_probs, entropy, log_probs >= student.top, told.values, told.kl, told.agrees)
    if not task.learns:
        return output, None
    slope = told.slope
    if objective.ce_weight or slope is None:
        slope = _add_cross_entropy(slope, student, labels, weights)
    return output, _through_head(slope, student, task.head)


def _add_cross_entropy(slope: Tensor | None, student: _Distribution, labels: Tensor, weights: Tensor) -> Tensor:
    """Add `weights * (probs - onehot)`; the student's probabilities are overwritten."""
    ours = student.probs.mul_(weights[:, None]).scatter_add_(1, labels[:, None], -weights[:, None])
    return ours if slope is None else slope.add_(ours)


def _through_head(slope: Tensor, student: _Distribution, head: LMHead) -> Tensor:
    """Take a gradient with respect to logits back through softcap and scale; log-probabilities are overwritten."""
    if head.softcap is not None:
        bounded = student.log_probs.add_(student.log_z[:, None]).div_(head.softcap)
        slope.sub_(bounded.square_().mul_(slope))
    return slope.mul_(head.scale) if head.scale != 1 else slope


class _Compared(NamedTuple):
    values: Tensor
    kl: Tensor
    agrees: Tensor
    slope: Tensor | None


def _compare(student: _Distribution, teacher: Tensor | SparseTarget | None, task: Task) -> _Compared:
    """Return the divergence and its part of the gradient with respect to the student's logits."""
    if teacher is None:
        nothing = torch.zeros_like(student.log_z)
        return _Compared(nothing, nothing, nothing > 0, None)
    objective, size = task.objective, student.probs.shape[1]
    known = teacher.shape[1] if isinstance(teacher, Tensor) else teacher.vocabulary
    shared = size if known is None else min(size, known)
    warm = _warmed(student, objective.temperature, shared)
    against = _against_logits if isinstance(teacher, Tensor) else _against_sparse
    told = against(warm, teacher, task)
    factor = objective.kd_weight * objective.divergence_scale / objective.temperature
    slope = told.slope if factor == 1 else told.slope.mul_(factor)
    if shared < size:  # ids the teacher does not have are none of its business
        slope = torch.nn.functional.pad(slope, (0, size - shared))
    return told._replace(values=told.values * objective.divergence_scale, slope=slope)


def _warmed(student: _Distribution, temperature: float, shared: int) -> _Distribution:
    """Return the student's distribution over the shared ids at a temperature."""
    if temperature == 1 and shared == student.probs.shape[1]:
        return student
    logits = (student.log_probs[:, :shared] + student.log_z[:, None]).div_(temperature)
    return _normalised(logits)


def _against_logits(student: _Distribution, logits: Tensor, task: Task) -> _Compared:
    objective = task.objective
    if objective.temperature != 1:
        logits.div_(objective.temperature)
    teacher = _normalised(logits)
    if objective.top_k is not None and objective.top_k < logits.shape[1]:
        return _against_sparse(student, _likeliest(teacher, objective), task)
    agrees = _agrees(student, lambda: teacher.probs.argmax(1), task)
    shift = student.log_z - teacher.log_z
    return _diverged(Pair(student.probs, student.log_probs, teacher.probs, teacher.log_probs, shift), agrees, task)


def _agrees(student: _Distribution, top: Callable[[], Tensor], task: Task) -> Tensor:
    """Return where both find the same id likeliest; in training nobody asks, and it costs a pass."""
    if task.learns:
        return torch.zeros_like(student.log_z, dtype=torch.bool)
    return student.probs.argmax(1) == top()


def _diverged(pair: Pair, agrees: Tensor, task: Task) -> _Compared:
    name, known = task.objective.divergence, torch.zeros_like(pair.shift)
    if name != "forward_kl" and not task.learns:  # told in evaluation whatever is trained
        known, _ = forward_kl(replace(pair, q=pair.q.clone(), log_q=pair.log_q.clone()))
    values, slope = divergence_of(name, task.objective.jsd_beta)(pair)
    return _Compared(values, values if name == "forward_kl" else known, agrees, slope)


def _likeliest(teacher: _Distribution, objective: Objective) -> SparseTarget:
    probs, ids = teacher.probs.topk(objective.top_k)
    tail = (1 - probs.sum(1)).clamp_min_(0)
    return SparseTarget(ids, probs, tail, objective.temperature)


def _against_sparse(student: _Distribution, target: SparseTarget, task: Task) -> _Compared:
    agrees = _agrees(student, lambda: target.ids.gather(1, target.probs.argmax(1, keepdim=True))[:, 0], task)
    log_p = student.log_probs.gather(1, target.ids)
    if target.tail is None:
        return _against_sample(student, log_p, target)._replace(agrees=agrees)
    rest = student.probs.scatter(1, target.ids, 0)
    tail = rest.sum(1, keepdim=True).clamp_min_(TINY)
    log_p = torch.cat([log_p, tail.log()], 1)
    q = torch.cat([target.probs, target.tail[:, None]], 1)
    pair = Pair(log_p.exp(), log_p, q, q.clamp_min(TINY).log(), torch.zeros_like(student.log_z))
    told = _diverged(pair, agrees, task)
    # The tail's logit is the log-sum of its ids' logits, so its gradient spreads over them by their share of it.
    slope = rest.mul_(told.slope[:, -1:] / tail).scatter_(1, target.ids, told.slope[:, :-1])
    return told._replace(slope=slope)


def _against_sample(student: _Distribution, log_p: Tensor, target: SparseTarget) -> _Compared:
    q = target.probs
    values = (torch.xlogy(q, q) - q * log_p).sum(1)
    slope = (student.probs * q.sum(1, keepdim=True)).scatter_add_(1, target.ids, -q)
    return _Compared(values, values, torch.zeros_like(values, dtype=torch.bool), slope)
