"""The LM head of a student that is distilled: one pass over tiles of tokens, gradients in the forward.

A tile's logits give the cross-entropy, the statistics that SFT logs, the divergence and the gradient of them all
together, and are gone before the next tile: four products with the heads per token (student, teacher, two for the
gradients; three where the student's head is frozen), and no `[tokens, vocab]` tensor. Products want large tiles;
what is done to each logit wants to stay in the cache, so it goes through a tile block by block (`head_block`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.divergences import WHOLE_VOCABULARY, divergence_of
from trl_prune.losses.head_block import HeadOutput, Objective, Task, compare_block
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget, TeacherTarget


# Bytes of a tile's float32 logits; the student's and the teacher's live at a time. Large enough that the products run
# at full speed, small enough for memory not to matter (benchmarks/README.md).
TILE_BYTES = {"cpu": 48 << 20, "cuda": 256 << 20}
# Bytes of a block's float32 logits, which come with three more tensors of their size.
BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
# Rows of a tile at least, whatever the vocabulary: with fewer, the heads are read more often than computed with.
MIN_ROWS = 256


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
        weight = target.head.weight
        target = replace(target, head=replace(target.head, weight=weight.to(dtype or weight.dtype)))
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
    gradients, task = _empty_gradients(hidden, job), Task(job.objective, job.head, any(job.wanted))
    ours, theirs = _tiles(count, job)
    for tile in _parts(slice(0, count), _rows_in(TILE_BYTES, job, MIN_ROWS)):
        student, teacher = ours[: tile.stop - tile.start], theirs[: tile.stop - tile.start]
        head_logits(hidden[tile], job.head, student)
        _teach(job.target, tile, teacher)
        for block in _parts(tile, _rows_in(BLOCK_BYTES, job)):
            inside = slice(block.start - tile.start, block.stop - tile.start)
            heard = teacher[inside] if isinstance(job.target, HeadTarget) else _rows_of(job.target, block)
            told, slope = compare_block(task, student[inside], heard, job.labels[block])
            loss += told.loss
            for whole, part in zip((log_probs, entropy, is_top1, divergence, kl, agrees), told[1:], strict=True):
                whole[block] = part
            if slope is not None:
                student[inside] = slope
        if task.learns:
            _accumulate(gradients, student, hidden, job, tile)
    return (loss, log_probs, entropy, is_top1, divergence, kl, agrees), gradients


def _rows_in(sizes: dict[str, int], job: _Job, least: int = 1) -> int:
    """Return how many rows of logits are of a size on the job's device, `least` of them where it has not as many."""
    vocab = max(len(job.head.weight), len(job.target.head.weight) if isinstance(job.target, HeadTarget) else 0)
    size = sizes.get(job.head.weight.device.type, sizes["cuda"])
    return max(least, size // (4 * vocab))


def _parts(rows: slice, each: int) -> Iterator[slice]:
    return (slice(start, min(start + each, rows.stop)) for start in range(rows.start, rows.stop, each))


def _tiles(count: int, job: _Job) -> tuple[Tensor, Tensor]:
    """Return room for the logits of student and teacher, which every tile uses anew."""
    rows = min(count, _rows_in(TILE_BYTES, job, MIN_ROWS))
    device = job.head.weight.device
    return tuple(torch.empty(rows, columns, device=device) for columns in (len(job.head.weight), _shared(job)))


def _teach(target: TeacherTarget | None, rows: slice, out: Tensor) -> None:
    """Write the logits of a teacher that is told by its head."""
    if isinstance(target, HeadTarget):
        head_logits(target.hidden[rows].to(target.head.weight.dtype), target.head, out)


def _shared(job: _Job) -> int:
    """Return how many ids a teacher that is told by its head shares with the student."""
    return min(len(job.head.weight), len(job.target.head.weight)) if isinstance(job.target, HeadTarget) else 0


def _rows_of(target: SparseTarget | None, rows: slice) -> SparseTarget | None:
    if target is None:
        return None
    tail = None if target.tail is None else target.tail[rows]
    return replace(target, ids=target.ids[rows], probs=target.probs[rows], tail=tail)


def _empty_gradients(hidden: Tensor, job: _Job) -> list[Tensor | None]:
    of_hidden, of_weight, of_bias = job.wanted
    vocab, width = job.head.weight.shape
    new = {"device": hidden.device, "dtype": torch.float32}
    return [
        torch.empty_like(hidden) if of_hidden else None,
        (torch.empty if len(hidden) else torch.zeros)(vocab, width, **new) if of_weight else None,
        torch.zeros(vocab, **new) if of_bias else None,
    ]


def _accumulate(gradients: list[Tensor | None], slope: Tensor, hidden: Tensor, job: _Job, rows: slice) -> None:
    """Add what a tile's `d loss / d (hidden @ weight.T + bias)` says of hidden states, weight and bias.

    The first tile finds nothing in the weight's gradient but what memory held: writing zeros first costs a pass.
    """
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias += slope.sum(0)
    slope = slope.to(job.dtype)
    if of_hidden is not None:
        torch.mm(slope, job.head.weight, out=of_hidden[rows])
    if of_weight is not None and job.dtype == torch.float32:
        of_weight.addmm_(slope.t(), hidden[rows], beta=0 if rows.start == 0 else 1)
    elif of_weight is not None and rows.start == 0:
        of_weight.copy_(slope.t() @ hidden[rows])
    elif of_weight is not None:
        of_weight += slope.t() @ hidden[rows]


def head_logits(hidden: Tensor, head: LMHead, out: Tensor) -> None:
    """Write the logits of the first ids, as many as `out` has columns, into `(n, columns)` float32."""
    weight = head.weight[: out.shape[1]]
    if weight.dtype == out.dtype:
        torch.mm(hidden, weight.t(), out=out)
    else:
        out.copy_(hidden @ weight.t())
    if head.bias is not None:
        out.add_(head.bias[: out.shape[1]])
    if head.scale != 1:
        out.mul_(head.scale)
    if head.softcap is not None:
        out.div_(head.softcap).tanh_().mul_(head.softcap)
