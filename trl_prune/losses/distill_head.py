"""The LM head of a student in distillation: one pass over tiles of tokens that computes gradients in the forward.

A tile's logits give the cross-entropy, the statistics that SFT logs, the divergence and the gradient of the loss; the
next tile overwrites them. This takes four products with the heads per token (student, teacher, two for the gradients;
three where the student's head is frozen) and no `[tokens, vocab]` tensor. Products are fastest on large tiles, and
elementwise operations in the cache, so these run on a tile block by block (`head_block`).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.divergences import FULL_VOCABULARY, get_divergence
from trl_prune.losses.head_block import BlockSettings, HeadOutput, Objective, block_loss
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget, TeacherTarget


# Bytes of a tile's float32 logits; one tile of the student and one of the teacher are in memory. Large enough for the
# products to run at full speed, small enough not to matter for memory (benchmarks/README.md).
TILE_BYTES = {"cpu": 48 << 20, "cuda": 256 << 20}
# Bytes of a block's float32 logits, which come with three more tensors of their size.
BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
# The least rows of a tile, whatever the vocabulary: with fewer, reading the heads takes longer than the products.
MIN_ROWS = 256


def distill(
    hidden: Tensor, head: LMHead, labels: Tensor, target: TeacherTarget | None, objective: Objective
) -> HeadOutput:
    """Return the objective over N positions and the statistics that SFT logs.

    Args:
        hidden: the student's final states, `(N, hidden_size)`.
        head: the student's head.
        labels: the ids to predict, `(N,)`.
        target: the teacher's distributions; None for the cross-entropy alone.
        objective: the loss to minimise.

    Raises:
        InputError: the objective cannot be computed from this kind of target.
    """
    check_target(target, objective)
    needs_grad = [
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in (hidden, head.weight, head.bias)
    ]
    autocast_dtype = _autocast_dtype(hidden)
    if isinstance(target, HeadTarget):
        weight = target.head.weight
        target = replace(target, head=replace(target.head, weight=weight.to(autocast_dtype or weight.dtype)))
    args = _HeadArguments(head, labels, target, objective, tuple(needs_grad), autocast_dtype or hidden.dtype)
    return HeadOutput(*_DistillHead.apply(hidden, head.weight, head.bias, args))


def check_target(target: TeacherTarget | None, objective: Objective) -> None:
    """Check that an objective can be computed from a target.

    Raises:
        InputError: it cannot.
    """
    name = objective.divergence
    get_divergence(name, objective.jsd_beta)
    sparse = isinstance(target, SparseTarget)
    if name in FULL_VOCABULARY and (sparse or objective.top_k):
        raise InputError(f"divergence {name!r} compares the full vocabulary; give a full teacher and no top_k")
    if not sparse:
        return
    if target.temperature != objective.temperature:
        raise InputError(f"temperature is {objective.temperature}, but the teacher's was {target.temperature}")
    if target.tail is None and name != "forward_kl":
        raise InputError(f"divergence is {name!r}, but a sampled teacher gives forward_kl only")


class _HeadArguments(NamedTuple):
    """Arguments of the pass without a gradient; `needs_grad` is of hidden states, weight and bias."""

    head: LMHead
    labels: Tensor
    target: TeacherTarget | None
    objective: Objective
    needs_grad: tuple[bool, bool, bool]
    dtype: torch.dtype


def _autocast_dtype(hidden: Tensor) -> torch.dtype | None:
    device_type = hidden.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None


class _DistillHead(torch.autograd.Function):
    """The pass as an autograd function whose backward is one multiplication: only the loss carries a gradient."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, bias: Tensor | None, args: _HeadArguments) -> tuple[Tensor, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            head = replace(args.head, weight=weight.detach().to(args.dtype))
            outputs, gradients = _run_tiles(hidden.detach().to(args.dtype), args._replace(head=head))
        dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.gradients = [None if g is None else (g, dtype) for g, dtype in zip(gradients, dtypes, strict=True)]
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx, grad_loss: Tensor | None, *_: object) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("backward ran through this forward already, and its gradients are freed")
        gradients, ctx.gradients = ctx.gradients, None
        if grad_loss is None:
            return None, None, None, None
        return *(None if g is None else g[0].mul_(grad_loss).to(g[1]) for g in gradients), None


def _run_tiles(hidden: Tensor, args: _HeadArguments) -> tuple[tuple[Tensor, ...], list[Tensor | None]]:
    """Return the outputs in the order of `HeadOutput`, and the loss's gradients of hidden states, weight and bias."""
    count, device = len(hidden), hidden.device
    log_probs, entropy, divergence, kl = (torch.zeros(count, device=device) for _ in range(4))
    is_top1, agrees = (torch.zeros(count, device=device, dtype=torch.bool) for _ in range(2))
    loss, per_position = torch.zeros((), device=device), (log_probs, entropy, is_top1, divergence, kl, agrees)
    gradients = _empty_gradients(hidden, args)
    settings = BlockSettings(args.objective, args.head, any(args.needs_grad))
    student_buffer, teacher_buffer = _tile_buffers(count, args)
    for tile in split_rows(slice(0, count), _rows_per(TILE_BYTES, args, MIN_ROWS)):
        student, teacher = student_buffer[: tile.stop - tile.start], teacher_buffer[: tile.stop - tile.start]
        write_logits(hidden[tile], args.head, student)
        _write_teacher_logits(args.target, tile, teacher)
        for block in split_rows(tile, _rows_per(BLOCK_BYTES, args)):
            in_tile = slice(block.start - tile.start, block.stop - tile.start)
            block_teacher = teacher[in_tile] if isinstance(args.target, HeadTarget) else _slice(args.target, block)
            output, gradient = block_loss(settings, student[in_tile], block_teacher, args.labels[block])
            loss += output.loss
            for full, part in zip(per_position, output[1:], strict=True):
                full[block] = part
            if gradient is not None:
                student[in_tile] = gradient
        if settings.needs_gradient:
            _accumulate(gradients, student, hidden, args, tile)
    return (loss, *per_position), gradients


def _rows_per(sizes: dict[str, int], args: _HeadArguments, least: int = 1) -> int:
    vocab_size = max(len(args.head.weight), len(args.target.head.weight) if isinstance(args.target, HeadTarget) else 0)
    return rows_of_size(sizes, args.head.weight.device, vocab_size, least)


def rows_of_size(sizes: dict[str, int], device: torch.device, vocab_size: int, least: int = 1) -> int:
    """Return how many rows of float32 logits have the size for a device, but no fewer than `least`."""
    return max(least, sizes.get(device.type, sizes["cuda"]) // (4 * vocab_size))


def split_rows(rows: slice, size: int) -> Iterator[slice]:
    """Yield consecutive slices of at most `size` rows."""
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _tile_buffers(count: int, args: _HeadArguments) -> tuple[Tensor, Tensor]:
    """Return buffers for the logits of student and teacher, which every tile reuses."""
    rows = min(count, _rows_per(TILE_BYTES, args, MIN_ROWS))
    device = args.head.weight.device
    columns = (len(args.head.weight), _shared_vocab_size(args))
    return tuple(torch.empty(rows, size, device=device) for size in columns)


def _write_teacher_logits(target: TeacherTarget | None, rows: slice, out: Tensor) -> None:
    """Write the logits of a `HeadTarget`; other targets have none."""
    if isinstance(target, HeadTarget):
        write_logits(target.hidden[rows].to(target.head.weight.dtype), target.head, out)


def _shared_vocab_size(args: _HeadArguments) -> int:
    """Return how many ids a `HeadTarget` shares with the student; 0 for other targets."""
    return min(len(args.head.weight), len(args.target.head.weight)) if isinstance(args.target, HeadTarget) else 0


def _slice(target: SparseTarget | None, rows: slice) -> SparseTarget | None:
    if target is None:
        return None
    tail = None if target.tail is None else target.tail[rows]
    return replace(target, ids=target.ids[rows], probs=target.probs[rows], tail=tail)


def _empty_gradients(hidden: Tensor, args: _HeadArguments) -> list[Tensor | None]:
    of_hidden, of_weight, of_bias = args.needs_grad
    vocab_size, hidden_size = args.head.weight.shape
    options = {"device": hidden.device, "dtype": torch.float32}
    return [
        torch.empty_like(hidden) if of_hidden else None,
        (torch.empty if len(hidden) else torch.zeros)(vocab_size, hidden_size, **options) if of_weight else None,
        torch.zeros(vocab_size, **options) if of_bias else None,
    ]


def _accumulate(
    gradients: list[Tensor | None], logit_gradient: Tensor, hidden: Tensor, args: _HeadArguments, rows: slice
) -> None:
    """Add a tile's gradients of hidden states, weight and bias, given that of `hidden @ weight.T + bias`.

    The first tile overwrites the weight's gradient, which is uninitialised: filling it with zeros first costs a pass.
    """
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias += logit_gradient.sum(0)
    logit_gradient = logit_gradient.to(args.dtype)
    if of_hidden is not None:
        torch.mm(logit_gradient, args.head.weight, out=of_hidden[rows])
    if of_weight is not None and args.dtype == torch.float32:
        of_weight.addmm_(logit_gradient.t(), hidden[rows], beta=0 if rows.start == 0 else 1)
    elif of_weight is not None and rows.start == 0:
        of_weight.copy_(logit_gradient.t() @ hidden[rows])
    elif of_weight is not None:
        of_weight += logit_gradient.t() @ hidden[rows]


def write_logits(hidden: Tensor, head: LMHead, out: Tensor) -> None:
    """Write the logits of the first `columns` ids into `out`, `(n, columns)` float32."""
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
