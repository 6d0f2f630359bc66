"""The loss of one block of logits, the statistics that SFT logs, and the gradient.

A block is a few rows that fit in the cache. `distill_head` chooses the rows and computes the products with the heads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.losses.divergences import DistributionPair, forward_kl, get_divergence, row_dot
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import SparseTarget


TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Objective:
    """The loss minimised at each position: `ce_weight * cross-entropy + kd_weight * divergence`.

    Attributes:
        divergence: a key of `DIVERGENCES`.
        jsd_beta: the teacher's weight in the mixture of `jsd`.
        temperature: divides both models' logits in the divergence.
        temperature_squared: whether the divergence is multiplied by the square of the temperature, so that its
            gradient keeps its scale (arXiv 1503.02531, section 2).
        top_k: compare the teacher's k likeliest ids and the mass of all others; the full vocabulary where None.
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
    """Output of the head; all but `loss` are `(N,)` and without gradient.

    Attributes:
        loss: the objective, summed over the positions.
        log_probs: log-probability of each label.
        entropy: entropy of the student's distribution.
        is_top1: whether the label is the student's likeliest id.
        divergence: the divergence, times the temperature's square where the objective has it; 0 without a target.
        kl: KL(teacher || student) at the temperature of the divergence; computed only if no gradient is needed or if
            it is the divergence.
        agrees: whether both models have the same likeliest id; computed only if no gradient is needed.
    """

    loss: Tensor
    log_probs: Tensor
    entropy: Tensor
    is_top1: Tensor
    divergence: Tensor
    kl: Tensor
    agrees: Tensor


class BlockSettings(NamedTuple):
    """Settings that all blocks share.

    Attributes:
        objective: the loss to minimise.
        head: the student's head, for its scale and softcap.
        needs_gradient: whether a gradient is computed.
    """

    objective: Objective
    head: LMHead
    needs_gradient: bool


class _Distribution(NamedTuple):
    probs: Tensor
    log_probs: Tensor
    log_z: Tensor
    max_log_prob: Tensor


class _DivergenceResult(NamedTuple):
    values: Tensor
    kl: Tensor
    agrees: Tensor
    gradient: Tensor | None


def block_loss(
    settings: BlockSettings, logits: Tensor, teacher: Tensor | SparseTarget | None, labels: Tensor
) -> tuple[HeadOutput, Tensor | None]:
    """Return a block's output, and the loss's gradient with respect to `hidden @ weight.T + bias`.

    Args:
        settings: the settings of all blocks.
        logits: the student's, `(n, V)` float32; overwritten.
        teacher: the teacher's logits of the ids that both models have, `(n, <= V)`, also overwritten; or its sparse
            probabilities; None for the cross-entropy alone.
        labels: the ids to predict, `(n,)`.
    """
    objective, student = settings.objective, _normalise(logits)
    log_probs = student.log_probs.gather(1, labels[:, None])[:, 0]
    entropy = -row_dot(student.probs, student.log_probs)
    weights = log_probs.exp() if objective.dynamic_fine_tuning else torch.ones_like(log_probs)
    weights *= objective.ce_weight
    divergence = _scaled_divergence(student, teacher, settings)
    loss = objective.kd_weight * divergence.values.sum() - (weights * log_probs).sum()
    is_top1 = log_probs >= student.max_log_prob
    output = HeadOutput(loss, log_probs, entropy, is_top1, divergence.values, divergence.kl, divergence.agrees)
    if not settings.needs_gradient:
        return output, None
    gradient = divergence.gradient
    if objective.ce_weight or gradient is None:
        gradient = _add_cross_entropy(gradient, student, labels, weights)
    return output, _through_scale_and_softcap(gradient, student, settings.head)


def _normalise(logits: Tensor) -> _Distribution:
    """Return the distribution of logits, which are overwritten by their log-probabilities.

    The log-partition is derived from the largest logit and the largest probability, without a second pass of
    exponentials.
    """
    probs, max_logit = torch.softmax(logits, 1), logits.amax(1)
    log_z = max_logit - probs.amax(1).log_()
    return _Distribution(probs, logits.sub_(log_z[:, None]), log_z, max_logit - log_z)


def _add_cross_entropy(gradient: Tensor | None, student: _Distribution, labels: Tensor, weights: Tensor) -> Tensor:
    """Add `weights * (probs - onehot)`; the student's probabilities are overwritten."""
    ce_gradient = student.probs.mul_(weights[:, None]).scatter_add_(1, labels[:, None], -weights[:, None])
    return ce_gradient if gradient is None else gradient.add_(ce_gradient)


def _through_scale_and_softcap(gradient: Tensor, student: _Distribution, head: LMHead) -> Tensor:
    """Backpropagate a gradient from the logits to before softcap and scale; log-probabilities are overwritten."""
    if head.softcap is not None:
        tanh = student.log_probs.add_(student.log_z[:, None]).div_(head.softcap)
        gradient.sub_(tanh.square_().mul_(gradient))
    return gradient.mul_(head.scale) if head.scale != 1 else gradient


def _scaled_divergence(
    student: _Distribution, teacher: Tensor | SparseTarget | None, settings: BlockSettings
) -> _DivergenceResult:
    """Return the scaled divergence and its weighted gradient with respect to the student's logits."""
    if teacher is None:
        zeros = torch.zeros_like(student.log_z)
        return _DivergenceResult(zeros, zeros, zeros > 0, None)
    objective, vocab_size = settings.objective, student.probs.shape[1]
    teacher_vocab_size = teacher.shape[1] if isinstance(teacher, Tensor) else teacher.vocab_size
    shared = vocab_size if teacher_vocab_size is None else min(vocab_size, teacher_vocab_size)
    tempered = _at_temperature(student, objective.temperature, shared)
    divergence_from = _divergence_from_logits if isinstance(teacher, Tensor) else _divergence_from_sparse
    result = divergence_from(tempered, teacher, settings)
    factor = objective.kd_weight * objective.divergence_scale / objective.temperature
    gradient = result.gradient if factor == 1 else result.gradient.mul_(factor)
    if shared < vocab_size:  # ids beyond the teacher's vocabulary get no gradient
        gradient = torch.nn.functional.pad(gradient, (0, vocab_size - shared))
    return result._replace(values=result.values * objective.divergence_scale, gradient=gradient)


def _at_temperature(student: _Distribution, temperature: float, shared: int) -> _Distribution:
    """Return the student's distribution over the shared ids at a temperature."""
    if temperature == 1 and shared == student.probs.shape[1]:
        return student
    logits = (student.log_probs[:, :shared] + student.log_z[:, None]).div_(temperature)
    return _normalise(logits)


def _divergence_from_logits(student: _Distribution, logits: Tensor, settings: BlockSettings) -> _DivergenceResult:
    objective = settings.objective
    if objective.temperature != 1:
        logits.div_(objective.temperature)
    teacher = _normalise(logits)
    if objective.top_k is not None and objective.top_k < logits.shape[1]:
        return _divergence_from_sparse(student, _top_k(teacher, objective), settings)
    agrees = _top1_agreement(student, lambda: teacher.probs.argmax(1), settings)
    shift = student.log_z - teacher.log_z
    pair = DistributionPair(student.probs, student.log_probs, teacher.probs, teacher.log_probs, shift)
    return _divergence(pair, agrees, settings)


def _top_k(teacher: _Distribution, objective: Objective) -> SparseTarget:
    probs, ids = teacher.probs.topk(objective.top_k)
    tail = (1 - probs.sum(1)).clamp_min_(0)
    return SparseTarget(ids, probs, tail, objective.temperature)


def _top1_agreement(student: _Distribution, teacher_top1: Callable[[], Tensor], settings: BlockSettings) -> Tensor:
    """Return where both models have the same likeliest id; in training False, as it is unused and costs a pass."""
    if settings.needs_gradient:
        return torch.zeros_like(student.log_z, dtype=torch.bool)
    return student.probs.argmax(1) == teacher_top1()


def _divergence(pair: DistributionPair, agrees: Tensor, settings: BlockSettings) -> _DivergenceResult:
    name, kl = settings.objective.divergence, torch.zeros_like(pair.shift)
    if name != "forward_kl" and not settings.needs_gradient:  # evaluation reports the KL of every objective
        kl, _ = forward_kl(replace(pair, q=pair.q.clone(), log_q=pair.log_q.clone()))
    values, gradient = get_divergence(name, settings.objective.jsd_beta)(pair)
    return _DivergenceResult(values, values if name == "forward_kl" else kl, agrees, gradient)


def _divergence_from_sparse(
    student: _Distribution, target: SparseTarget, settings: BlockSettings
) -> _DivergenceResult:
    agrees = _top1_agreement(
        student, lambda: target.ids.gather(1, target.probs.argmax(1, keepdim=True))[:, 0], settings
    )
    log_p = student.log_probs.gather(1, target.ids)
    if target.tail is None:
        return _divergence_from_sample(student, log_p, target)._replace(agrees=agrees)
    rest = student.probs.scatter(1, target.ids, 0)
    tail = rest.sum(1, keepdim=True).clamp_min_(TINY)
    log_p = torch.cat([log_p, tail.log()], 1)
    q = torch.cat([target.probs, target.tail[:, None]], 1)
    pair = DistributionPair(log_p.exp(), log_p, q, q.clamp_min(TINY).log(), torch.zeros_like(student.log_z))
    result = _divergence(pair, agrees, settings)
    # The tail's logit is the log-sum of its ids' logits, so each of them gets its share of the tail's gradient.
    gradient = rest.mul_(result.gradient[:, -1:] / tail).scatter_(1, target.ids, result.gradient[:, :-1])
    return result._replace(gradient=gradient)


def _divergence_from_sample(student: _Distribution, log_p: Tensor, target: SparseTarget) -> _DivergenceResult:
    q = target.probs
    values = (torch.xlogy(q, q) - q * log_p).sum(1)
    gradient = (student.probs * q.sum(1, keepdim=True)).scatter_add_(1, target.ids, -q)
    return _DivergenceResult(values, values, torch.zeros_like(values, dtype=torch.bool), gradient)
