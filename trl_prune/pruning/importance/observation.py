"""Watching a forward pass: where the units of each axis show, by the families' table, and the pass itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.families import HEADS, HIDDEN, LAYERS, NEURONS, Family


Batch = dict[str, Tensor]
STREAM = "residual stream"
# What the states of all blocks may take at once: a batch goes through the model in slices of rows that fit.
HELD_BYTES = {"cpu": 2**25, "cuda": 2**30}


@dataclass(frozen=True)
class Site:
    """A place in the model where the channels of an axis can be read.

    Attributes:
        axis: the axis whose channels these are, or STREAM.
        layer: the decoder block, in its number; the stream after the last block has the number of blocks.
        module: the module to watch.
        side: whether to read what goes into it or what comes out.
    """

    axis: str
    layer: int
    module: nn.Module
    side: Literal["input", "output"]


class Observer(Protocol):
    """Something that reads along while the model runs."""

    def attached(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the observer sees the model's forward passes."""
        ...

    def before(self, mask: Tensor) -> None:
        """Learn the attention mask of the next forward pass, `(rows, tokens)`."""
        ...

    def after(self) -> None:
        """Add what the pass showed to the sums."""
        ...


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return a causal LM's decoder blocks."""
    decoder = model.get_decoder()
    lists = [child for child in decoder.children() if isinstance(child, nn.ModuleList)]
    return next(blocks for blocks in lists if len(blocks) == model.config.num_hidden_layers)


def stream_sites(model: PreTrainedModel) -> list[Site]:
    """Return where the residual stream can be read: before every block and after the last.

    The last is the block's output because `hidden_states[-1]` of transformers is after the final norm.
    """
    blocks = decoder_blocks(model)
    before = [Site(STREAM, layer, block, "input") for layer, block in enumerate(blocks)]
    return [*before, Site(STREAM, len(blocks), blocks[-1], "output")]


def unit_sites(model: PreTrainedModel, family: Family) -> list[Site]:
    """Return where heads, neurons and hidden channels can be read.

    Heads show in what enters the attention's output projection, neurons in what enters the MLP's (after activation
    and gate), hidden channels in what each norm inside a block puts out. Experts' own neurons are no axis.
    """
    return [
        site
        for layer, block in enumerate(decoder_blocks(model))
        for name, module in block.named_modules()
        if next(module.children(), None) is None
        for site in _sites_of(name, module, layer, family)
    ]


def _sites_of(name: str, module: nn.Module, layer: int, family: Family) -> Iterator[Site]:
    dims = family.axis_dims(f"{name}.weight")
    if dims == ((HIDDEN,),):
        yield Site(HIDDEN, layer, module, "output")
    if len(dims) == 2:
        entering, leaving = dims if family.transposed else dims[::-1]
        if leaving == (HIDDEN,) and entering in ((HEADS,), (NEURONS,)):
            yield Site(entering[0], layer, module, "input")


@contextmanager
def watched(sites: Iterable[Site], read: Callable[[Site, Tensor], None]) -> Iterator[None]:
    """Call `read` with every activation, `(rows, tokens, channels)`, that passes a site."""
    with ExitStack() as stack:
        for site in sites:
            stack.callback(_hook(site, read).remove)
        yield


def _hook(site: Site, read: Callable[[Site, Tensor], None]) -> torch.utils.hooks.RemovableHandle:
    def entering(_: nn.Module, args: tuple, kwargs: dict) -> None:
        read(site, args[0] if args else kwargs["hidden_states"])

    def leaving(_: nn.Module, __: tuple, output: Tensor | tuple) -> None:
        read(site, output if isinstance(output, Tensor) else output[0])

    if site.side == "input":
        return site.module.register_forward_pre_hook(entering, with_kwargs=True)
    return site.module.register_forward_hook(leaving)


@torch.inference_mode()
def observe(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    observers: Iterable[Observer],
    after_batch: Callable[[], None] = lambda: None,
) -> None:
    """Run batches through the decoder, never the LM head, before the eyes of observers.

    A batch goes through in slices of rows, without the columns that are padding in all of a slice: observers hold
    every block's states of a slice at once, and nothing they sum may depend on how rows are batched.

    Args:
        model: a causal LM in eval mode, on one device, on several, or offloaded by accelerate.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`.
        observers: what reads along.
        after_batch: called after each batch.
    """
    decoder, device, observers = model.get_decoder(), input_device(model), list(observers)
    with ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer.attached(model))
        for batch in batches:
            for rows in slices(batch, rows_at_a_time(model, batch, device)):
                inputs = {name: tensor.to(device) for name, tensor in rows.items()}
                for observer in observers:
                    observer.before(inputs["attention_mask"])
                decoder(**inputs, use_cache=False)
                for observer in observers:
                    observer.after()
            after_batch()


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device that inputs go to."""
    embeddings = model.get_input_embeddings()
    if embeddings.weight.device.type != "meta":
        return embeddings.weight.device
    # Offloaded: the weights are nowhere until the module runs, and only its output says where that was.
    return embeddings(torch.zeros(1, 1, dtype=torch.long)).device


def rows_at_a_time(model: PreTrainedModel, batch: Batch, device: torch.device) -> int:
    """Return how many rows of a batch go through the model at once."""
    config = model.config
    held = (getattr(config, LAYERS) + 1) * batch["input_ids"].shape[1] * config.hidden_size * model.dtype.itemsize
    return max(1, HELD_BYTES.get(device.type, HELD_BYTES["cuda"]) // held)


def slices(batch: Batch, rows: int) -> Iterator[Batch]:
    """Yield a batch a few rows at a time, each without the columns in which all its rows are padding."""
    placed = with_positions(batch)
    for start in range(0, len(placed["input_ids"]), rows):
        part = {name: tensor[start : start + rows] for name, tensor in placed.items()}
        used = part["attention_mask"].any(dim=0).nonzero()
        if len(used):
            columns = slice(int(used[0]), int(used[-1]) + 1)
            yield {name: tensor[:, columns] for name, tensor in part.items()}


def with_positions(batch: Batch) -> Batch:
    """Return a batch whose positions count from each row's first token: without them a model counts the padding."""
    mask = batch["attention_mask"]
    if "position_ids" in batch or bool(mask[:, 0].all()):
        return batch
    return batch | {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
