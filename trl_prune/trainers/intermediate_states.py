"""Read a model's intermediate states while it runs, and find the norms that read them."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from accelerate.utils import align_module_device
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.errors import InputError
from trl_prune.trainers.trl_names import gathered_head


class StatePoint(NamedTuple):
    """A place in a model.

    Attributes:
        state: `embedding`, `block` (its output), `mlp` (its input) or `attention` (queries, keys and values).
        block: index of the decoder block; 0 for `embedding`.
    """

    state: str
    block: int


# What a block calls the norm of its input; families without one (OLMo 2) hand the stream on as it is.
INPUT_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "embedding_norm")
MLPS = ("mlp", "fc1")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
INSIDE_BLOCKS = ("mlp", "attention")


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return a model's decoder blocks: the one list of as many modules as the config has layers.

    Raises:
        InputError: there is no such list.
    """
    count = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList))
    found = next((blocks for blocks in lists if len(blocks) == count), None)
    if found is None:
        raise InputError(f"{type(model).__name__} has no list of {count} decoder blocks; set hidden_loss='none'")
    return found


@contextmanager
def captured_states(model: PreTrainedModel, points: tuple[StatePoint, ...]) -> Iterator[dict[StatePoint, Tensor]]:
    """Let a causal LM's next forward fill in the states at some points, `(batch, tokens, width)`.

    The stream is as it enters the next block, or the final norm: what is read there keeps its graph where blocks are
    checkpointed.

    Raises:
        InputError: the model has no such module.
    """
    told: dict[StatePoint, Tensor] = {}
    handles = [handle for point in points for handle in _hooks(model, point, told)]
    try:
        yield told
    finally:
        for handle in handles:
            handle.remove()


def _hooks(model: PreTrainedModel, point: StatePoint, told: dict[StatePoint, Tensor]) -> list:
    blocks = blocks_of(model)
    if point.state == "mlp":
        return [_before(_named(blocks[point.block], MLPS, point), point, told)]
    if point.state == "attention":
        return _projections(blocks[point.block], point, told)
    reader, _ = _reader(model, point)
    return [_after_all(model.base_model, point, told) if reader is None else _before(reader, point, told)]


def _reader(model: PreTrainedModel, point: StatePoint) -> tuple[nn.Module | None, nn.Module | None]:
    """Return what the stream enters behind a point, the next block or the final norm, and the norm it meets there."""
    blocks, number = blocks_of(model), point.block + (point.state == "block")
    if number < len(blocks):
        return blocks[number], _child(blocks[number], INPUT_NORMS)
    norm = _child(model.get_decoder(), FINAL_NORMS)
    return norm, norm


def comparison_norm(model: PreTrainedModel, point: StatePoint) -> nn.Module | None:
    """Return a frozen float32 copy of the norm that reads a state of the stream, None where there is none.

    States inside a block are after its norms already.
    """
    if point.state in INSIDE_BLOCKS:
        return None
    _, norm = _reader(model, point)
    if norm is None:
        return None
    with gathered_head(*norm.parameters()), align_module_device(norm):
        return _frozen(norm)


def _frozen(norm: nn.Module) -> nn.Module:
    """Return a module of its own with a norm's weights, without the hooks that offload or shard the norm."""
    own = copy.copy(norm)
    own._forward_hooks, own._forward_pre_hooks = OrderedDict(), OrderedDict()
    own._parameters = {
        name: weight if weight is None else nn.Parameter(weight.detach().float().clone(), requires_grad=False)
        for name, weight in norm._parameters.items()  # with those that are None, such as a bias left out
    }
    for name in ("_hf_hook", "_old_forward", "forward"):  # accelerate's, where weights are offloaded
        vars(own).pop(name, None)
    return own


def _after_all(backbone: nn.Module, point: StatePoint, told: dict[StatePoint, Tensor]) -> object:
    def read(_: nn.Module, __: tuple, output: ModelOutput) -> None:
        told.setdefault(point, output.last_hidden_state)

    return backbone.register_forward_hook(read)


def _before(module: nn.Module, point: StatePoint, told: dict[StatePoint, Tensor]) -> object:
    def read(_: nn.Module, given: tuple, named: dict) -> None:
        told.setdefault(point, given[0] if given else named["hidden_states"])

    return module.register_forward_pre_hook(read, with_kwargs=True)


def _projections(block: nn.Module, point: StatePoint, told: dict[StatePoint, Tensor]) -> list:
    found = {name.rpartition(".")[2]: module for name, module in block.named_modules()}
    missing = [name for name in PROJECTIONS if name not in found]
    if missing:
        raise InputError(f"hidden_loss names 'attention', but {type(block).__name__} has no {missing[0]}")
    parts: dict[str, Tensor] = {}

    def hook(name: str) -> object:
        def read(_: nn.Module, __: tuple, output: Tensor) -> None:
            parts.setdefault(name, output)
            told.setdefault(point, parts)

        return found[name].register_forward_hook(read)

    return [hook(name) for name in PROJECTIONS]


def _named(block: nn.Module, names: tuple[str, ...], point: StatePoint) -> nn.Module:
    found = _child(block, names)
    if found is None:
        raise InputError(f"hidden_loss names {point.state!r}, but {type(block).__name__} has none of {names}")
    return found


def _child(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    children = dict(module.named_children())
    return next((children[name] for name in names if name in children), None)
