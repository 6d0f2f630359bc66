"""Run a tiny dense model as if units of an axis were not there, to compare a pruned model with it."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.families import EXPERTS, HIDDEN, Family
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.surgery.cut import Cut


@contextmanager
def units_masked(model: PreTrainedModel, cut: Cut, axis: str, embedding_scale: float = 1.0) -> Iterator[None]:
    """Run the model without the units of one axis that a plan removes.

    The weights of removed neurons and heads are zeroed, removed experts are never chosen, and norms run over the kept
    channels alone.

    Args:
        model: the dense model.
        cut: the plan.
        axis: the axis that it cuts.
        embedding_scale: what the embeddings are multiplied by when hidden channels are cut.
    """
    with ExitStack() as stack:
        if axis == HIDDEN:
            _mask_stream(stack, model, cut, embedding_scale)
        for name, weight in model.named_parameters():
            if axis == EXPERTS:
                _mask_router(stack, name, weight, cut)
            elif axis != HIDDEN:
                _zero_units(stack, name, weight, cut, axis)
        yield


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


def _mask_stream(stack: ExitStack, model: PreTrainedModel, cut: Cut, embedding_scale: float) -> None:
    kept = cut.keep[HIDDEN]
    mask = torch.zeros(cut.sizes[HIDDEN])
    mask[kept] = embedding_scale

    def mask_input(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] * mask, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] * mask}

    stack.callback(decoder_blocks(model)[0].register_forward_pre_hook(mask_input, with_kwargs=True).remove)
    for name, module in model.named_modules():
        if is_stream_norm(name, module, cut.family):
            _norm_over(stack, module, kept)


def is_stream_norm(name: str, module: nn.Module, family: Family) -> bool:
    """Return whether a module is a norm over hidden channels."""
    weights = list(module.named_parameters(recurse=False))
    is_norm = "norm" in type(module).__name__.lower() and bool(weights)
    return is_norm and all(family.dim_axes(f"{name}.{weight}") == ((HIDDEN,),) for weight, _ in weights)


def _norm_over(stack: ExitStack, module: nn.Module, kept: Sequence[int]) -> None:
    small = copy.deepcopy(module)
    for name, weight in list(small.named_parameters(recurse=False)):
        setattr(small, name, nn.Parameter(weight.detach()[kept]))
    if hasattr(small, "normalized_shape"):
        small.normalized_shape = (len(kept),)

    def masked(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        result = torch.zeros_like(output)
        result[..., kept] = small(args[0][..., kept])
        return result

    stack.callback(module.register_forward_hook(masked).remove)
