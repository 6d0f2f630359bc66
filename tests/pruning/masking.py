"""Run the dense model with units masked, by hooks that do not use the family table."""

import copy
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, NEURONS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.keep import Keep


ATTENTION_OUTPUTS = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.dense", "self_attn.out_proj")
MLP_OUTPUTS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "fc2", "mlp.fc2")
# Of Qwen2's mixtures the neurons of the shared expert are an axis, those of the dense MLPs between them are not.
MLP_OUTPUTS_OF = {"qwen2_moe": ("shared_expert.down_proj",)}
ROUTERS = ("mlp.gate", "mlp.router", "block_sparse_moe.gate", "block_sparse_moe.router")


@contextmanager
def masked(model: PreTrainedModel, keep: Keep) -> Iterator[PreTrainedModel]:
    """Run the model with the units outside `keep` (completed, without removed layers) masked."""
    with ExitStack() as stack:
        for layer, block in enumerate(decoder_blocks(model)):
            for name, module in block.named_modules():
                _mask_module(stack, model, module, name, {axis: _kept_in(keep, axis, layer) for axis in keep})
        if HIDDEN in keep:
            _mask_stream(stack, model, keep[HIDDEN])
        yield model


def mlp_outputs(model: PreTrainedModel) -> tuple[str, ...]:
    return MLP_OUTPUTS_OF.get(model.config.model_type, MLP_OUTPUTS)


def _kept_in(keep: Keep, axis: str, layer: int) -> list[int]:
    return keep[axis][layer] if isinstance(keep[axis][0], list) else keep[axis]


def _mask_module(stack: ExitStack, model: PreTrainedModel, module: nn.Module, name: str, kept: dict) -> None:
    if HEADS in kept and name.endswith(ATTENTION_OUTPUTS):
        _mask_input(stack, module, kept[HEADS], model.config.num_attention_heads)
    if NEURONS in kept and name.endswith(mlp_outputs(model)):
        _mask_input(stack, module, kept[NEURONS], None)
    if EXPERTS in kept and name.endswith(ROUTERS) and hasattr(module, "weight"):
        _mask_router(stack, module.weight, kept[EXPERTS])
    if HIDDEN in kept and is_stream_norm(module, name):
        _norm_over_kept(stack, module, kept[HIDDEN])
    _mask_head_norm(stack, model, module, name, kept)


def _mask_head_norm(stack: ExitStack, model: PreTrainedModel, module: nn.Module, name: str, kept: dict) -> None:
    """Let a norm over all heads at once (OLMo 2) run over the kept heads only."""
    for suffix, axis in (("q_norm", HEADS), ("k_norm", KV_HEADS)):
        if axis in kept and name.endswith(suffix) and module.weight.numel() > 8:
            _norm_over_kept(stack, module, _channels(kept[axis], module.weight.numel() // getattr(model.config, axis)))


def is_stream_norm(module: nn.Module, name: str) -> bool:
    return "Norm" in type(module).__name__ and not re.search(r"(^|\.)(q|k|query|key)_", name)


def _channels(units: list[int], size: int) -> list[int]:
    """Return the channels of units of `size` channels each."""
    return [unit * size + offset for unit in units for offset in range(size)]


def _mask_input(stack: ExitStack, module: nn.Module, kept: list[int], units: int | None) -> None:
    def hook(_: nn.Module, args: tuple) -> tuple:
        channels = _channels(kept, args[0].shape[-1] // units) if units else kept
        mask = torch.zeros(args[0].shape[-1])
        mask[channels] = 1
        return (args[0] * mask,)

    stack.callback(module.register_forward_pre_hook(hook).remove)


def _mask_router(stack: ExitStack, weight: Tensor, kept: list[int]) -> None:
    linear = nn.functional.linear

    def masked_linear(states: Tensor, linear_weight: Tensor, bias: Tensor | None = None) -> Tensor:
        logits = linear(states, linear_weight, bias)
        if linear_weight is weight or linear_weight.data_ptr() == weight.data_ptr():
            removed = [expert for expert in range(len(weight)) if expert not in kept]
            logits[..., removed] = -1e9
        return logits

    stack.enter_context(patch("torch.nn.functional.linear", masked_linear))


def _norm_over_kept(stack: ExitStack, module: nn.Module, kept: list[int]) -> None:
    small_norm = copy.deepcopy(module)
    for name, weight in list(small_norm.named_parameters(recurse=False)):
        setattr(small_norm, name, nn.Parameter(weight.detach()[kept]))
    if hasattr(small_norm, "normalized_shape"):
        small_norm.normalized_shape = (len(kept),)

    def hook(_: nn.Module, args: tuple, output: Tensor) -> Tensor:
        masked_output = torch.zeros_like(output)
        masked_output[..., kept] = small_norm(args[0][..., kept])
        return masked_output

    stack.callback(module.register_forward_hook(hook).remove)


def _mask_stream(stack: ExitStack, model: PreTrainedModel, kept: list[int]) -> None:
    """Zero the input of the first block, run the final norm over kept channels, scale by Gemma's sqrt(hidden_size)."""
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
            _norm_over_kept(stack, module, kept)


def unit_modules(model: PreTrainedModel) -> dict[str, list[nn.Module]]:
    """Return the modules whose inputs are heads and neurons and whose outputs are hidden channels, by their names."""
    modules = [pair for block in decoder_blocks(model) for pair in block.named_modules()]
    return {
        HEADS: [module for name, module in modules if name.endswith(ATTENTION_OUTPUTS)],
        NEURONS: [module for name, module in modules if name.endswith(mlp_outputs(model))],
        HIDDEN: [module for name, module in modules if is_stream_norm(module, name)],
    }
