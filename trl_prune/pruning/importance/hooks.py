"""Where the units of each axis can be read in a model, by the family table, and the forward hooks that read them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.checkpoints import num_blocks
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, NEURONS, Family


STREAM = "residual stream"


@dataclass(frozen=True)
class Site:
    """A hook location: the input or the output of a module.

    Attributes:
        key: what is read there: an axis, STREAM, or the name of a weight.
        layer: index of the decoder block; for the stream after the last block, the number of blocks.
        module: the module to hook.
        side: whether to read the module's input or its output.
    """

    key: str
    layer: int
    module: nn.Module
    side: Literal["input", "output"]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return a causal LM's decoder blocks: its list of as many modules as the config has layers.

    Raises:
        InputError: there is no such list.
    """
    count = num_blocks(model.config.get_text_config())
    for module in (*model.get_decoder().modules(), *model.modules()):  # in some classes `decoder` is the LM head
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"{type(model).__name__} has no list of {count} decoder blocks")


def stream_sites(model: PreTrainedModel) -> list[Site]:
    """Return the sites of the residual stream: the input of every block and the output of the last.

    The last state is read at the block because transformers' `hidden_states[-1]` comes after the final norm.
    """
    blocks = decoder_blocks(model)
    inputs = [Site(STREAM, layer, block, "input") for layer, block in enumerate(blocks)]
    return [*inputs, Site(STREAM, len(blocks), blocks[-1], "output")]


def unit_sites(model: PreTrainedModel, family: Family) -> list[Site]:
    """Return the sites of heads, neurons and hidden channels.

    Heads are the input of the attention output projection, neurons the input of the MLP output projection (after
    activation and gate), hidden channels the output of each norm inside a block. Neurons of experts are not an axis.
    """
    return [
        site
        for layer, block in enumerate(decoder_blocks(model))
        for name, module in block.named_modules()
        if next(module.children(), None) is None
        for site in _module_sites(name, module, layer, family)
    ]


def _module_sites(name: str, module: nn.Module, layer: int, family: Family) -> Iterator[Site]:
    axes = family.dim_axes(f"{name}.weight")
    if axes == ((HIDDEN,),):
        yield Site(HIDDEN, layer, module, "output")
    if len(axes) == 2:
        inputs, outputs = axes if family.transposed else axes[::-1]
        if outputs == (HIDDEN,) and inputs in ((HEADS,), (NEURONS,)):
            yield Site(inputs[0], layer, module, "input")


@contextmanager
def activation_hooks(sites: Iterable[Site], callback: Callable[[Site, Tensor], None]) -> Iterator[None]:
    """Call `callback(site, activation)` in every forward pass, activations `(rows, tokens, channels)`."""
    with ExitStack() as stack:
        for site in sites:
            stack.callback(_register(site, callback).remove)
        yield


def _register(site: Site, callback: Callable[[Site, Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    def read_input(_: nn.Module, args: tuple, kwargs: dict) -> None:
        callback(site, args[0] if args else kwargs["hidden_states"])

    def read_output(_: nn.Module, __: tuple, output: Tensor | tuple) -> None:
        callback(site, output if isinstance(output, Tensor) else output[0])

    if site.side == "input":
        return site.module.register_forward_pre_hook(read_input, with_kwargs=True)
    return site.module.register_forward_hook(read_output)
