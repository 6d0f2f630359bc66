"""The dense model run as if units were gone, by hooks that know nothing of the families' table."""

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.families import EXPERTS, GROUPS, HEADS, HIDDEN, NEURONS
from trl_prune.pruning.importance.layers import decoder_blocks
from trl_prune.pruning.keep import Keep


ATTENTION_OUTPUTS = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.dense", "self_attn.out_proj")
MLP_OUTPUTS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "fc2", "mlp.fc2")
ROUTERS = ("mlp.gate", "mlp.router", "block_sparse_moe.gate", "block_sparse_moe.router")


@contextmanager
def masked(model: PreTrainedModel, keep: Keep) -> Iterator[PreTrainedModel]:
    """Run the model with the units outside `keep` (complete, without removed layers) doing nothing."""
    with ExitStack() as stack:
        for layer, block in enumerate(decoder_blocks(model)):
            for name, module in block.named_modules():
                _mask_module(stack, model, module, name, {axis: _of(keep, axis, layer) for axis in keep})
        if HIDDEN in keep:
            _mask_stream(stack, model, keep[HIDDEN])
        yield model


def _of(keep: Keep, axis: str, layer: int) -> list[int]:
    return keep[axis][layer] if isinstance(keep[axis][0], list) else keep[axis]


def _mask_module(stack: ExitStack, model: PreTrainedModel, module: nn.Module, name: str, kept: dict) -> None:
    if HEADS in kept and name.endswith(ATTENTION_OUTPUTS):
        _mask_input(stack, module, kept[HEADS], model.config.num_attention_heads)
    if NEURONS in kept and name.endswith(MLP_OUTPUTS):
        _mask_input(stack, module, kept[NEURONS], None)
    if EXPERTS in kept and name.endswith(ROUTERS) and hasattr(module, "weight"):
        _mask_router(stack, module.weight, kept[EXPERTS])
    if HIDDEN in kept and is_stream_norm(module, name):
        _twin_norm(stack, module, kept[HIDDEN])
    _mask_head_norm(stack, model, module, name, kept)


def _mask_head_norm(stack: ExitStack, model: PreTrainedModel, module: nn.Module, name: str, kept: dict) -> None:
    """A norm over all heads at once (OLMo 2) runs over the heads that stay."""
    for suffix, axis in (("q_norm", HEADS), ("k_norm", GROUPS)):
        if axis in kept and name.endswith(suffix) and module.weight.numel() > 8:
            _twin_norm(stack, module, _spread(kept[axis], module.weight.numel() // getattr(model.config, axis)))


def is_stream_norm(module: nn.Module, name: str) -> bool:
    return "Norm" in type(module).__name__ and not re.search(r"(^|\.)(q|k|query|key)_", name)


def _spread(units: list[int], size: int) -> list[int]:
    return [unit * size + place for unit in units for place in range(size)]


def _mask_input(stack: ExitStack, module: nn.Module, kept: list[int], units: int | None) -> None:
    def hook(_: nn.Module, args: tuple) -> tuple:
        channels = _spread(kept, args[0].shape[-1] // units) if units else kept
        mask = torch.zeros(args[0].shape[-1])
        mask[channels] = 1
        return (args[0] * mask,)

    stack.callback(module.register_forward_pre_hook(hook).remove)


def _mask_router(stack: ExitStack, weight: Tensor, kept: list[int]) -> None:
    linear = nn.functional.linear

    def routed(states: Tensor, used: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = linear(states, used, bias)
        if used is weight or used.data_ptr() == weight.data_ptr():
            gone = [index for index in range(len(weight)) if index not in kept]
            logits[..., gone] = -1e9
        return logits

    stack.enter_context(patch("torch.nn.functional.linear", routed))


def _twin_norm(stack: ExitStack, module: nn.Module, kept: list[int]) -> None:
    twin = copy.deepcopy(module)
    for name, weight in list(twin.named_parameters(recurse=False)):
        setattr(twin, name, nn.Parameter(weight.detach()[kept]))
    if hasattr(twin, "normalized_shape"):
        twin.normalized_shape = (len(kept),)

    def hook(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        told = torch.zeros_like(output)
        told[..., kept] = twin(args[0][..., kept])
        return told

    stack.callback(module.register_forward_hook(hook).remove)


def _mask_stream(stack: ExitStack, model: PreTrainedModel, kept: list[int]) -> None:
    """Zero what enters the first block, norm over the kept channels at the end, and follow Gemma's sqrt(hidden)."""
    scale = (len(kept) / model.config.hidden_size) ** 0.5 if "gemma" in model.config.model_type else 1.0
    mask = torch.zeros(model.config.hidden_size)
    mask[kept] = scale

    def hook(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] * mask, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] * mask}

    stack.callback(decoder_blocks(model)[0].register_forward_pre_hook(hook, with_kwargs=True).remove)
    for name, module in model.get_decoder().named_children():
        if is_stream_norm(module, name):
            _twin_norm(stack, module, kept)
