"""Read a model's intermediate states while it runs, as the norm that reads them next sees them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.errors import InputError
from trl_prune.trainers.sharded import whole


class Point(NamedTuple):
    """A place in a model.

    Attributes:
        state: `embedding`, `block` (its output), `mlp` (its input) or `attention` (queries, keys and values).
        block: index of the decoder block; 0 for `embedding`.
    """

    state: str
    block: int


# What a block calls the norm of its input; families without one (OLMo 2) hand the stream on as it is.
INPUT_NORMS = ("input_layernorm", "ln_1", "self_attn_layer_norm")
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
def reading(model: PreTrainedModel, points: tuple[Point, ...]) -> Iterator[dict[Point, Tensor]]:
    """Let a causal LM's next forward fill in the states at some points, `(batch, tokens, width)`.

    Blocks may be checkpointed: the stream is read where it enters a block, which keeps its graph.

    Raises:
        InputError: the model has no such module.
    """
    told: dict[Point, Tensor] = {}
    handles = [handle for point in points for handle in _hooks(model, point, told)]
    try:
        yield told
    finally:
        for handle in handles:
            handle.remove()


def _hooks(model: PreTrainedModel, point: Point, told: dict[Point, Tensor]) -> list:
    blocks = blocks_of(model)
    if point.state == "mlp":
        return [_before(_named(blocks[point.block], MLPS, point), point, told)]
    if point.state == "attention":
        return _projections(blocks[point.block], point, told)
    reader = point.block + (point.state == "block")
    if reader < len(blocks):
        return [_before(blocks[reader], point, told, _input_norm(blocks[reader]))]
    return [_after_all(model.base_model, point, told)]


def _after_all(backbone: nn.Module, point: Point, told: dict[Point, Tensor]) -> object:
    def read(_: nn.Module, __: tuple, output: ModelOutput) -> None:
        told.setdefault(point, output.last_hidden_state)

    return backbone.register_forward_hook(read)


def _before(module: nn.Module, point: Point, told: dict[Point, Tensor], norm: nn.Module | None = None) -> object:
    def read(_: nn.Module, given: tuple, named: dict) -> None:
        states = given[0] if given else named["hidden_states"]
        told.setdefault(point, states if norm is None else _normed(norm, states))

    return module.register_forward_pre_hook(read, with_kwargs=True)


def _normed(norm: nn.Module, states: Tensor) -> Tensor:
    """Return normed states; the norm is the ruler here, so its weights get no gradient from what is measured."""
    weights = {name: whole(weight.detach()) for name, weight in norm.named_parameters()}
    return torch.func.functional_call(norm, weights, (states,))


def _projections(block: nn.Module, point: Point, told: dict[Point, Tensor]) -> list:
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


def _input_norm(block: nn.Module) -> nn.Module | None:
    children = dict(block.named_children())
    return next((children[name] for name in INPUT_NORMS if name in children), None)


def _named(block: nn.Module, names: tuple[str, ...], point: Point) -> nn.Module:
    children = dict(block.named_children())
    found = next((children[name] for name in names if name in children), None)
    if found is None:
        raise InputError(f"hidden_loss names {point.state!r}, but {type(block).__name__} has none of {names}")
    return found
