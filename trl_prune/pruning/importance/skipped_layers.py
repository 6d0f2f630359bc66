"""Run a model without some of its decoder blocks, and measure its loss."""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.forward import Batch
from trl_prune.pruning.importance.hooks import decoder_blocks


# Arguments by which a block gets a cache that it would write to.
CACHES = {"cache", "past_key_values", "past_key_value", "layer_past", "cache_params", "use_cache"}


class StandIn(nn.Module):
    """A module in place of a decoder block, with the attributes of the block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        # In a list, so that the block is no submodule, whose hooks and weights others would find.
        self._block = [block]

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the block, such as its kind of attention, which some models ask their blocks for."""
        if name == "_block":
            raise AttributeError(name)
        return getattr(self._block[0], name)


class IdentityBlock(StandIn):
    """A decoder block that returns its input, in the form of the block that it stands for."""

    def __init__(self, block: nn.Module, index: int) -> None:
        super().__init__(block)
        self._others, self._index, self._given = None, index, None

    @contextmanager
    def returning(self, states: Tensor) -> Iterator[None]:
        """Return given states in place of the input."""
        self._given = states
        try:
            yield
        finally:
            self._given = None

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple:
        """Return the input; as the first of a tuple, if the block returns one."""
        states = args[0] if args else kwargs["hidden_states"]
        self._count_in_cache(next((value for value in kwargs.values() if isinstance(value, Cache)), None), states)
        if self._others is None:  # only the block's own output shows its form
            uncached = dict.fromkeys(CACHES & kwargs.keys())
            if any(isinstance(kwargs[name], Cache) for name in uncached):  # the mask covers what the cache holds, too
                uncached |= dict.fromkeys({"attention_mask"} & kwargs.keys())
            output = self._block[0](*args, **kwargs | uncached)
            self._others = () if isinstance(output, Tensor) else (None,) * (len(output) - 1)
            self._is_tuple = not isinstance(output, Tensor)
        if self._given is not None:
            states = self._given.clone()  # the next block may write into it
        return (states, *self._handed_on(args, kwargs)) if self._is_tuple else states

    def _handed_on(self, args: tuple, kwargs: dict) -> tuple:
        """Return what follows the states: what the block before handed on (Zaya's router, HY V4's indices) or None."""
        given = dict(zip(inspect.signature(self._block[0].forward).parameters, args, strict=False)) | kwargs
        previous = [value for name, value in given.items() if name.startswith("prev_")]
        return (*previous, *self._others[len(previous) :])

    def _count_in_cache(self, cache: Cache | None, states: Tensor) -> None:
        """Write an empty entry for each token: models read from the first block's cache how long the text is."""
        if cache is None:
            return
        layer = cache.layers[self._index] if self._index < len(cache.layers) else None
        if layer is None or isinstance(layer, CacheLayerMixin):
            entry = states.new_zeros(states.shape[0], 1, states.shape[1], 1)
            cache.update(entry, entry, self._index)


@contextmanager
def layers_skipped(model: PreTrainedModel, removed: Iterable[int]) -> Iterator[PreTrainedModel]:
    """Replace some blocks by the identity; indices, masks and KV cache of the others stay, generation included."""
    blocks = decoder_blocks(model)
    originals = {index: blocks[index] for index in removed}
    for index in originals:
        blocks[index] = IdentityBlock(originals[index], index)
    try:
        yield model
    finally:
        for index, block in originals.items():
            blocks[index] = block


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[Batch]) -> float:
    """Return the mean next-token cross-entropy in nats over all unpadded tokens; perplexity is its exponential."""
    total, count = 0.0, 0
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        labels = inputs["input_ids"][:, 1:].masked_fill(inputs["attention_mask"][:, 1:] == 0, MASKED)
        total += nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum").item()
        count += int((labels != MASKED).sum())
    return total / max(count, 1)
