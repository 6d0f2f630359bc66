"""What a model costs by count: its size, its floating-point operations, the weights and the KV cache that it reads."""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel


# The length of the forward pass whose operations are counted.
FLOP_TOKENS = 512
# Operations that read chosen rows of a weight rather than all of it.
ROW_READS = {torch.ops.aten.embedding.default, torch.ops.aten.index.Tensor, torch.ops.aten.index_select.default}


@dataclass(frozen=True)
class Size:
    """A model's parameters and operations, by count.

    Attributes:
        parameters: number of weights; tied ones count once.
        flops_per_token: floating-point operations of a forward pass over 512 tokens, per token (attention included).
    """

    parameters: int
    flops_per_token: float


@dataclass(frozen=True)
class Work:
    """What prefill and decoding cost a model, by count.

    Attributes:
        prefill_flops: floating-point operations for each token of a prompt of 512 tokens, whose last token alone gets
            logits.
        decode_weights: number of weights that are read to generate one token of one text: of experts those that it is
            routed to, of an embedding table one row.
        cache_values: number of values in the KV cache for each token of a text of 512 tokens; a layer with a sliding
            window holds no more than its window.
    """

    prefill_flops: float
    decode_weights: int
    cache_values: float

    def decode_reads(self, context: float) -> float:
        """Return the number of values, weights and KV cache, that are read to generate a token after a context."""
        return self.decode_weights + self.cache_values * context


def measure_size(meta_model: PreTrainedModel) -> Size:
    """Return the size of a model on the meta device."""
    flops, _ = _forward(meta_model, FLOP_TOKENS, use_cache=False)
    return Size(sum(weight.numel() for weight in meta_model.parameters()), flops / FLOP_TOKENS)


def count_work(meta_model: PreTrainedModel) -> Work:
    """Return what prefill and decoding cost a model on the meta device."""
    flops, output = _forward(meta_model, FLOP_TOKENS, use_cache=True, logits_to_keep=1)
    # Linear attention and state spaces keep a state that does not grow with the text.
    cache = getattr(output, "past_key_values", None)
    growing = [layer for layer in getattr(cache, "layers", ()) if getattr(layer, "keys", None) is not None]
    values = sum(state.numel() for layer in growing for state in (layer.keys, layer.values))
    with _WeightReads(meta_model) as reads:
        _forward(meta_model, 1, use_cache=False)
    return Work(flops / FLOP_TOKENS, reads.count, values / FLOP_TOKENS)


def _forward(meta_model: PreTrainedModel, length: int, **options: object) -> tuple[int, object]:
    """Return the operations and the output of a forward pass over one text on the meta device."""
    # Grouped products fail in float32 on some versions of torch, and the counter does not count them. Batched ones
    # look up the experts that a token is routed to.
    meta_model.set_experts_implementation("batched_mm")
    tokens = torch.zeros((1, length), dtype=torch.long, device="meta")
    # With a mask and eager attention the forward reads no values, which meta tensors do not have.
    forward = partial(meta_model, input_ids=tokens, attention_mask=torch.ones_like(tokens), **options)
    # The masks of hybrids read values unless the model is being traced.
    as_traced = patch("transformers.masking_utils.is_tracing", lambda *_: True)
    with as_traced, FlopCounterMode(display=False) as counter, torch.no_grad():
        output = forward()
    return counter.get_total_flops(), output


class _WeightReads(TorchDispatchMode):
    """Counts the weights that operations read: every weight once, or the rows of it that are looked up."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self._sizes = {_storage(weight): weight.numel() for weight in model.parameters()}
        self._whole: set[StorageWeakRef] = set()
        self._rows: Counter[StorageWeakRef] = Counter()

    @property
    def count(self) -> int:
        """The number of weights read so far."""
        rows = sum(count for storage, count in self._rows.items() if storage not in self._whole)
        return rows + sum(self._sizes[storage] for storage in self._whole)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        storages = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        weights = storages & self._sizes.keys()
        if weights and func in ROW_READS:
            self._rows.update(dict.fromkeys(weights, result.numel()))
        elif not func.is_view:  # a view (transposed, reshaped) reads nothing
            self._whole |= weights
        return result


def _storage(tensor: Tensor) -> StorageWeakRef:
    # Meta tensors have no address, but a view shares the storage of its weight.
    return StorageWeakRef(tensor.untyped_storage())
