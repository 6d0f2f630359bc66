"""Capture a model's intermediate states during its forward, and find the norms applied to them."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.sharded import full_parameters


class StatePoint(NamedTuple):
    """A point of a model's forward at which a state is read.

    Attributes:
        state: `embedding`, `block` (its output), `mlp` (its input) or `attention` (queries, keys and values).
        block: index of the decoder block; 0 for `embedding`.
    """

    state: str
    block: int


# `(batch, tokens, width)`; for `attention` one such tensor for each of `PROJECTIONS`.
CapturedStates = dict[StatePoint, Tensor | dict[str, Tensor]]

# Names of the norm at a block's input, by family; families without one (OLMo 2) use the stream unnormalised.
INPUT_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "embedding_norm")
MLPS = ("mlp", "fc1")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
INSIDE_BLOCKS = ("mlp", "attention")


@contextmanager
def capture_states(model: PreTrainedModel, points: tuple[StatePoint, ...]) -> Iterator[CapturedStates]:
    """Yield a dictionary that the causal LM's next forward fills with its states at the points.

    The residual stream is read at the input of the next block, or of the final norm: the state read there keeps its
    autograd graph under gradient checkpointing.

    Raises:
        InputError: the model has no such module.
    """
    states: CapturedStates = {}
    handles = [handle for point in points for handle in _register_hooks(model, point, states)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _register_hooks(model: PreTrainedModel, point: StatePoint, states: CapturedStates) -> list[RemovableHandle]:
    blocks = decoder_blocks(model)
    if point.state == "mlp":
        return [_capture_input(_required_child(blocks[point.block], MLPS, point), point, states)]
    if point.state == "attention":
        return _capture_projections(blocks[point.block], point, states)
    consumer, _ = _stream_consumer(model, point)
    if consumer is None:
        return [_capture_last_hidden_state(model.base_model, point, states)]
    return [_capture_input(consumer, point, states)]


def _stream_consumer(model: PreTrainedModel, point: StatePoint) -> tuple[nn.Module | None, nn.Module | None]:
    """Return the module that takes a point's stream as input, the next block or the final norm, and its input norm."""
    blocks, index = decoder_blocks(model), point.block + (point.state == "block")
    if index < len(blocks):
        return blocks[index], _child(blocks[index], INPUT_NORMS)
    norm = final_norm(model)
    return norm, norm


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """Return the norm after a causal LM's last block, None where it has none of the usual names."""
    return _child(model.get_decoder(), FINAL_NORMS)


def comparison_norm(model: PreTrainedModel, point: StatePoint) -> nn.Module | None:
    """Return a frozen float32 copy of the norm that the model applies to the stream at a point.

    None where the model applies none, and for states inside a block, which are read after its norms.
    """
    if point.state in INSIDE_BLOCKS:
        return None
    _, norm = _stream_consumer(model, point)
    if norm is None:
        return None
    with full_parameters(*norm.parameters()), align_module_device(norm):
        return _frozen_copy(norm)


def _frozen_copy(norm: nn.Module) -> nn.Module:
    """Copy a norm and its weights, without the hooks that offload or shard them."""
    frozen = copy.copy(norm)
    frozen._forward_hooks, frozen._forward_pre_hooks = OrderedDict(), OrderedDict()
    frozen._parameters = {
        name: weight if weight is None else nn.Parameter(weight.detach().float().clone(), requires_grad=False)
        for name, weight in norm._parameters.items()  # a parameter can be None, as a bias that is not used
    }
    for name in ("_hf_hook", "_old_forward", "forward"):  # set by accelerate where weights are offloaded
        vars(frozen).pop(name, None)
    return frozen


def _capture_last_hidden_state(backbone: nn.Module, point: StatePoint, states: CapturedStates) -> RemovableHandle:
    def capture(_: nn.Module, __: tuple, output: ModelOutput) -> None:
        states.setdefault(point, output.last_hidden_state)

    return backbone.register_forward_hook(capture)


def _capture_input(module: nn.Module, point: StatePoint, states: CapturedStates) -> RemovableHandle:
    def capture(_: nn.Module, args: tuple, kwargs: dict) -> None:
        states.setdefault(point, args[0] if args else kwargs["hidden_states"])

    return module.register_forward_pre_hook(capture, with_kwargs=True)


def _capture_projections(block: nn.Module, point: StatePoint, states: CapturedStates) -> list[RemovableHandle]:
    modules = {name.rpartition(".")[2]: module for name, module in block.named_modules()}
    missing = [name for name in PROJECTIONS if name not in modules]
    if missing:
        raise InputError(f"hidden_loss names 'attention', but {type(block).__name__} has no {missing[0]}")
    outputs: dict[str, Tensor] = {}

    def register(name: str) -> RemovableHandle:
        def capture(_: nn.Module, __: tuple, output: Tensor) -> None:
            outputs.setdefault(name, output)
            states.setdefault(point, outputs)

        return modules[name].register_forward_hook(capture)

    return [register(name) for name in PROJECTIONS]


def _required_child(block: nn.Module, names: tuple[str, ...], point: StatePoint) -> nn.Module:
    child = _child(block, names)
    if child is None:
        raise InputError(f"hidden_loss names {point.state!r}, but {type(block).__name__} has none of {names}")
    return child


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    children = dict(module.named_children())
    return next((children[name] for name in names if name in children), None)
