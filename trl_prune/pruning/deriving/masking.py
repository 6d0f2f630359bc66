"""Run a tiny dense model as if units of an axis were not there, to compare a pruned model with it."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, NEURONS, Family
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.surgery.cut import Cut


@contextmanager
def units_masked(model: PreTrainedModel, cut: Cut, embedding_scale: float = 1.0) -> Iterator[None]:
    """Run the model without the units that a plan removes from its axes of width.

    The weights of removed neurons and heads are zeroed, removed experts are never chosen, and norms run over the kept
    units alone.

    Args:
        model: the dense model.
        cut: the plan.
        embedding_scale: what the embeddings are multiplied by when hidden channels are cut.
    """
    with ExitStack() as stack:
        if HIDDEN in cut.keep:
            _mask_stream(stack, model, cut, embedding_scale)
        for name, module in model.named_modules():
            if is_norm(module):
                _mask_norm(stack, name, module, cut)
        for name, weight in model.named_parameters():
            _mask_weight(stack, name, weight, cut)
        yield


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a norm."""
    return "norm" in type(module).__name__.lower() and next(module.children(), None) is None


def is_stream_norm(name: str, module: nn.Module, family: Family) -> bool:
    """Return whether a module is a norm with weights over hidden channels."""
    axes = [family.dim_axes(f"{name}.{weight}") for weight, _ in module.named_parameters(recurse=False)]
    return is_norm(module) and bool(axes) and all(dims == ((HIDDEN,),) for dims in axes)


def _mask_stream(stack: ExitStack, model: PreTrainedModel, cut: Cut, embedding_scale: float) -> None:
    mask = torch.zeros(cut.sizes[HIDDEN])
    mask[cut.keep[HIDDEN]] = 1

    def mask_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] * mask, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] * mask}

    # Embeddings of positions, which are added to those of tokens, are not scaled.
    embeddings = model.get_input_embeddings()
    stack.callback(embeddings.register_forward_hook(lambda *call: call[2] * embedding_scale).remove)
    stack.callback(decoder_blocks(model)[0].register_forward_pre_hook(mask_input, with_kwargs=True).remove)


def _mask_norm(stack: ExitStack, name: str, module: nn.Module, cut: Cut) -> None:
    """Let a norm run over the kept units alone; one without weights over hidden channels, where it gets these."""
    weights = list(module.named_parameters(recurse=False))
    if weights:
        weight_name, weight = weights[0]
        indices = cut.kept_indices(f"{name}.{weight_name}", weight.shape)
        kept = indices[0] if indices and weight.ndim == 1 else None
        length = len(weight)
    else:
        kept, length = cut.kept_units(HIDDEN, None), cut.sizes.get(HIDDEN)
    if kept is not None:
        _norm_over(stack, module, kept, length)


def _norm_over(stack: ExitStack, module: nn.Module, kept: Tensor | list[int], length: int) -> None:
    small = copy.deepcopy(module)
    for name, weight in list(small.named_parameters(recurse=False)):
        setattr(small, name, nn.Parameter(weight.detach()[kept]))
    if hasattr(small, "normalized_shape"):
        small.normalized_shape = (len(kept),)

    def masked(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        if output.shape[-1] != length:
            return output
        result = torch.zeros_like(output)
        result[..., kept] = small(args[0][..., kept])
        return result

    stack.callback(module.register_forward_hook(masked).remove)


def _mask_weight(stack: ExitStack, name: str, weight: Tensor, cut: Cut) -> None:
    if EXPERTS in cut.keep:
        _mask_router(stack, name, weight, cut)
    for axis in {HEADS, NEURONS} & cut.keep.keys():  # a KV group goes with its heads
        _zero_units(stack, name, weight, cut, axis)
    if HIDDEN in cut.keep and weight.ndim == 3:  # a convolution whose channels are as many as those of the stream
        _zero_units(stack, name, weight, cut, HIDDEN)


def _zero_units(stack: ExitStack, name: str, weight: Tensor, cut: Cut, axis: str) -> None:
    """Zero the units that are removed in a weight, where each has its rows to itself."""
    dims = cut.family.dim_axes(name)
    if (axis,) not in dims or any(len(parts) > 1 for parts in dims):
        return
    original = weight.detach().clone()
    stack.callback(lambda: weight.data.copy_(original))
    for dim, kept in enumerate(cut.kept_indices(name, weight.shape)):
        if kept is not None:
            removed = [index for index in range(weight.shape[dim]) if index not in set(kept.tolist())]
            weight.data.index_fill_(dim, torch.tensor(removed), 0)


def _mask_router(stack: ExitStack, name: str, weight: Tensor, cut: Cut) -> None:
    if cut.family.dim_axes(name) != ((EXPERTS,), (HIDDEN,)):
        return
    kept = cut.kept_units(EXPERTS, cut.layer_of(name))
    removed = [expert for expert in range(len(weight)) if expert not in kept]
    linear = nn.functional.linear

    def masked_linear(states: Tensor, linear_weight: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = linear(states, linear_weight, bias)
        if linear_weight.shape == weight.shape and torch.equal(linear_weight.float(), weight.float()):
            logits[..., removed] = -1e9
        return logits

    stack.enter_context(patch("torch.nn.functional.linear", masked_linear))
