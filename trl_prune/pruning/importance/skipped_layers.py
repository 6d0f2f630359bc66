"""Run a model without some of its decoder blocks, and measure its loss."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.forward import Batch
from trl_prune.pruning.importance.hooks import decoder_blocks


class IdentityBlock(nn.Module):
    """A decoder block that returns its input."""

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """Return the input."""
        return hidden_states


@contextmanager
def layers_skipped(model: PreTrainedModel, removed: Iterable[int]) -> Iterator[PreTrainedModel]:
    """Replace some blocks by the identity; layer indices, masks and KV cache of the others stay as they are."""
    blocks = decoder_blocks(model)
    originals = {index: blocks[index] for index in removed}
    for index in originals:
        blocks[index] = IdentityBlock()
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
