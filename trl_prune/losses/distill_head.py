"""The LM head of a student that is distilled: one pass over chunks of tokens, gradients in the forward.

A chunk's logits give the cross-entropy, the statistics that SFT logs, the divergence and the gradient of them all
together, and are gone before the next chunk: four products with the heads per token (student, teacher, two for the
gradients; three where the student's head is frozen), and no `[tokens, vocab]` tensor.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.lm_head import LMHead
from trl_prune.losses.divergences import WHOLE_VOCABULARY, Pair, divergence_of, forward_kl, row_dot
from trl_prune.losses.targets import HeadTarget, SparseTarget, TeacherTarget


# Bytes of one chunk's float32 logits; four such tensors live at a time. Large enough that a chunk's matrix products
# run at full speed, small enough for memory not to matter (benchmarks/README.md).
TILE_BYTES = {"cpu": 24 << 20, "cuda": 256 << 20}
MIN_ROWS = 16
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


def distill(
    hidden: Tensor, head: LMHead, labels: Tensor, target: TeacherTarget | None, objective: Objective
) -> HeadOutput:
    """Return the objective over N positions and what SFT logs beside it.

    Args:
        hidden: the student's final states, `(N, hidden_size)`.
        head: the student's head.
        labels: the ids to predict, `(N,)`.
        target: what the teacher says; None for the cross-entropy alone.
        objective: what to minimise.

    Raises:
        InputError: the objective wants what the target cannot tell.
    """
    check_target(target, objective)
    wanted = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in (hidden, head.weight, head.bias)]
    dtype = _autocast_dtype(hidden)
    if isinstance(target, HeadTarget):
        target = replace(target, weight=target.weight.to(dtype or target.weight.dtype))
    job = _Job(head, labels, target, objective, tuple(wanted), dtype or hidden.dtype)
    return HeadOutput(*_DistillHead.apply(hidden, head.weight, head.bias, job))


def check_target(target: TeacherTarget | None, objective: Objective) -> None:
    """Check that a target can tell what an objective compares.

    Raises:
        InputError: it cannot.
    """
    name = objective.divergence
    divergence_of(name, objective.jsd_beta)
    sparse = isinstance(target, SparseTarget)
    if name in WHOLE_VOCABULARY and (sparse or objective.top_k):
        raise InputError(f"divergence {name!r} compares the whole vocabulary; give a full teacher and no top_k")
    if not sparse:
        return
    if target.temperature != objective.temperature:
        raise InputError(f"temperature is {objective.temperature}, but the teacher's was {target.temperature}")
    if target.tail is None and name != "forward_kl":
        raise InputError(f"divergence is {name!r}, but a sampled teacher gives forward_kl only")


class _Job(NamedTuple):
    head: LMHead
    labels: Tensor
    target: TeacherTarget | None
    objective: Objective
    wanted: tuple[bool, bool, bool]
    dtype: torch.dtype


def _autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


class _DistillHead(torch.autograd.Function):
    """The pass as an autograd function whose backward is one multiplication: only the sum carries a gradient."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, job: _Job) -> tuple[Tensor, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            head = replace(job.head, weight=weight.detach().to(job.dtype))
            told, gradients = _run(hidden.detach().to(job.dtype), job._replace(head=head))
        dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.gradients = [None if g is None else (g, dtype) for g, dtype in zip(gradients, dtypes, strict=True)]
        ctx.mark_non_differentiable(*told[1:])
        ctx.set_materialize_grads(False)
        return told

    @staticmethod
    def backward(ctx, given: Tensor | None, *_: object) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this forward are used up: backward ran through it already")
        gradients, ctx.gradients = ctx.gradients, None
        if given is None:
            return None, None, None, None
        return *(None if g is None else g[0].mul_(given).to(g[1]) for g in gradients), None


def _run(hidden: Tensor, job: _Job) -> tuple[tuple[Tensor, ...], list[Tensor | None]]:
    count, device = len(hidden), hidden.device
    floats = [torch.zeros(count, device=device) for _ in range(4)]
    flags = [torch.zeros(count, device=device, dtype=torch.bool) for _ in range(2)]
    log_probs, entropy, divergence, kl = floats
    is_top1, agrees = flags
    loss = torch.zeros((), device=device)
    gradients = _empty_gradients(hidden, job)
    for rows in _chunks(count, job):
        told, slope = _chunk(hidden[rows], job, rows)
        loss += told.loss
        for whole, part in zip((log_probs, entropy, is_top1, divergence, kl, agrees), told[1:], strict=True):
            whole[rows] = part
        if slope is not None:
            _accumulate(gradients, slope, hidden, job, rows)
        del slope  # not beside the next chunk's
    return (loss, log_probs, entropy, is_top1, divergence, kl, agrees), gradients


def _chunks(count: int, job: _Job) -> Iterator[slice]:
    vocab = max(len(job.head.weight), len(job.target.weight) if isinstance(job.target, HeadTarget) else 0)
    tile = TILE_BYTES.get(job.head.weight.device.type, TILE_BYTES["cuda"])
    rows = max(MIN_ROWS, tile // (4 * vocab))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _empty_gradients(hidden: Tensor, job: _Job) -> list[Tensor | None]:
    of_hidden, of_weight, of_bias = job.wanted
    vocab, width = job.head.weight.shape
    new = {"device": hidden.device, "dtype": torch.float32}
    return [
        torch.empty_like(hidden) if of_hidden else None,
        torch.zeros(vocab, width, **new) if of_weight else None,
        torch.zeros(vocab, **new) if of_bias else None,
    ]


def _accumulate(gradients: list[Tensor | None], slope: Tensor, hidden: Tensor, job: _Job, rows: slice) -> None:
    """Add what a chunk's `d loss / d (hidden @ weight.T + bias)` says of hidden states, weight and bias."""
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias += slope.sum(0)
    slope = slope.to(job.dtype)
    if of_hidden is not None:
        torch.mm(slope, job.head.weight, out=of_hidden[rows])
    if of_weight is not None and job.dtype == torch.float32:
        of_weight.addmm_(slope.t(), hidden[rows])
    elif of_weight is not None:
        of_weight += slope.t() @ hidden[rows]


def head_logits(hidden: Tensor, head: LMHead | HeadTarget, vocab: int | None = None) -> Tensor:
    """Return the float32 logits of the first `vocab` ids, `(n, vocab)`."""
    weight = head.weight[:vocab]
    bias = None if head.bias is None else head.bias[:vocab].to(weight.dtype)
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    if head.scale != 1:
        logits.mul_(head.scale)
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits


class _Distribution(NamedTuple):
    probs: Tensor
    log_probs: Tensor
    log_z: Tensor


def _normalised(logits: Tensor) -> _Distribution:
    """Return the distribution of logits, which are overwritten by their log-probabilities.

    The log-partition comes out of the largest logit and the largest probability: no second pass of exponentials.
    """
    probs = torch.softmax(logits, 1)
    log_z = logits.amax(1) - probs.amax(1).log_()
    return _Distribution(probs, logits.sub_(log_z[:, None]), log_z)


def _chunk(hidden: Tensor, job: _Job, rows: slice) -> tuple[HeadOutput, Tensor | None]:
    """Return a chunk's values, and the loss's gradient with respect to `hidden @ weight.T + bias`."""
    labels, objective = job.labels[rows], job.objective
    student = _normalised(head_logits(hidden, job.head))
    log_probs = student.log_probs.gather(1, labels[:, None])[:, 0]
    entropy = -row_dot(student.probs, student.log_probs)
    weights = log_probs.exp() if objective.dynamic_fine_tuning else torch.ones_like(log_probs)
    weights *= objective.ce_weight
    is_top1 = log_probs >= student.log_probs.amax(1)
    told = _compare(student, job, rows)
    loss = objective.kd_weight * told.values.sum() - (weights * log_probs).sum()
    output = HeadOutput(loss, log_probs, entropy, is_top1, told.values, told.kl, told.agrees)
    if not any(job.wanted):
        return output, None
    slope = told.slope
    if objective.ce_weight or slope is None:
        slope = _add_cross_entropy(slope, student, labels, weights)
    return output, _through_head(slope, student, job.head)


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


def _compare(student: _Distribution, job: _Job, rows: slice) -> _Compared:
    """Return the divergence and its part of the gradient with respect to the student's logits."""
    if job.target is None:
        nothing = torch.zeros_like(student.log_z)
        return _Compared(nothing, nothing, nothing > 0, None)
    objective, target, size = job.objective, _rows_of(job.target, rows), student.probs.shape[1]
    shared = min(size, len(target.weight)) if isinstance(target, HeadTarget) else size
    warm = _warmed(student, objective.temperature, shared)
    against = _against_head if isinstance(target, HeadTarget) else _against_sparse
    told = against(warm, target, job)
    slope = told.slope.mul_(objective.kd_weight * objective.divergence_scale / objective.temperature)
    if shared < size:  # ids the teacher does not have are none of its business
        slope = torch.nn.functional.pad(slope, (0, size - shared))
    return told._replace(values=told.values * objective.divergence_scale, slope=slope)


def _rows_of(target: TeacherTarget, rows: slice) -> TeacherTarget:
    if isinstance(target, HeadTarget):
        return replace(target, hidden=target.hidden[rows])
    tail = None if target.tail is None else target.tail[rows]
    return replace(target, ids=target.ids[rows], probs=target.probs[rows], tail=tail)


def _warmed(student: _Distribution, temperature: float, shared: int) -> _Distribution:
    """Return the student's distribution over the shared ids at a temperature."""
    if temperature == 1 and shared == student.probs.shape[1]:
        return student
    logits = (student.log_probs[:, :shared] + student.log_z[:, None]).div_(temperature)
    return _normalised(logits)


def _against_head(student: _Distribution, target: HeadTarget, job: _Job) -> _Compared:
    vocab = student.probs.shape[1]
    logits = head_logits(target.hidden.to(target.weight.dtype), target, vocab)
    if job.objective.temperature != 1:
        logits.div_(job.objective.temperature)
    teacher = _normalised(logits)
    if job.objective.top_k is not None and job.objective.top_k < vocab:
        return _against_sparse(student, _likeliest(teacher, job.objective), job)
    agrees = _agrees(student, lambda: teacher.probs.argmax(1), job)
    shift = student.log_z - teacher.log_z
    return _diverged(Pair(student.probs, student.log_probs, teacher.probs, teacher.log_probs, shift), agrees, job)


def _agrees(student: _Distribution, top: Callable[[], Tensor], job: _Job) -> Tensor:
    """Return where both find the same id likeliest; in training nobody asks, and it costs a pass."""
    if any(job.wanted):
        return torch.zeros_like(student.log_z, dtype=torch.bool)
    return student.probs.argmax(1) == top()


def _diverged(pair: Pair, agrees: Tensor, job: _Job) -> _Compared:
    name, known = job.objective.divergence, torch.zeros_like(pair.shift)
    if name != "forward_kl" and not any(job.wanted):  # told in evaluation whatever is trained
        known, _ = forward_kl(replace(pair, q=pair.q.clone(), log_q=pair.log_q.clone()))
    values, slope = divergence_of(name, job.objective.jsd_beta)(pair)
    return _Compared(values, values if name == "forward_kl" else known, agrees, slope)


def _likeliest(teacher: _Distribution, objective: Objective) -> SparseTarget:
    probs, ids = teacher.probs.topk(objective.top_k)
    tail = (1 - probs.sum(1)).clamp_min_(0)
    return SparseTarget(ids, probs, tail, objective.temperature)


def _against_sparse(student: _Distribution, target: SparseTarget, job: _Job) -> _Compared:
    agrees = _agrees(student, lambda: target.ids.gather(1, target.probs.argmax(1, keepdim=True))[:, 0], job)
    log_p = student.log_probs.gather(1, target.ids)
    if target.tail is None:
        return _against_sample(student, log_p, target)._replace(agrees=agrees)
    rest = student.probs.scatter(1, target.ids, 0)
    tail = rest.sum(1, keepdim=True).clamp_min_(TINY)
    log_p = torch.cat([log_p, tail.log()], 1)
    q = torch.cat([target.probs, target.tail[:, None]], 1)
    pair = Pair(log_p.exp(), log_p, q, q.clamp_min(TINY).log(), torch.zeros_like(student.log_z))
    told = _diverged(pair, agrees, job)
    # The tail's logit is the log-sum of its ids' logits, so its gradient spreads over them by their share of it.
    slope = rest.mul_(told.slope[:, -1:] / tail).scatter_(1, target.ids, told.slope[:, :-1])
    return told._replace(slope=slope)


def _against_sample(student: _Distribution, log_p: Tensor, target: SparseTarget) -> _Compared:
    q = target.probs
    values = (torch.xlogy(q, q) - q * log_p).sum(1)
    slope = (student.probs * q.sum(1, keepdim=True)).scatter_add_(1, target.ids, -q)
    return _Compared(values, values, torch.zeros_like(values, dtype=torch.bool), slope)
