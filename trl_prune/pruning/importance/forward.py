"""Forward passes of the decoder over calibration batches, read by observers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.losses.positions import COUNTED
from trl_prune.pruning.families import LAYERS


Batch = dict[str, Tensor]
# Limit on the states of all blocks held at once: a batch goes through the model in slices of rows that fit.
MAX_STATES_BYTES = {"cpu": 2**25, "cuda": 2**30}


class Observer(Protocol):
    """Reads activations during forward passes and accumulates sums over them."""

    def attach(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the observer reads the model's forward passes."""
        ...

    def before_forward(self, attention_mask: Tensor) -> None:
        """Receive the mask of the next forward pass's tokens that count, `(rows, tokens)`."""
        ...

    def after_forward(self) -> None:
        """Add what was read in the forward pass to the sums."""
        ...


@torch.inference_mode()
def observe(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    observers: Iterable[Observer],
    after_batch: Callable[[], None] = lambda: None,
) -> None:
    """Run batches through the decoder, without the LM head, with observers attached.

    A batch goes through in slices of rows, without the columns that are padding in every row of a slice: observers
    hold the states of every block for a slice at once. Their sums must not depend on how rows are batched.

    Args:
        model: a causal LM in eval mode, on one device, on several, or offloaded by accelerate.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`, and COUNTED where not all count.
        observers: what reads the activations.
        after_batch: called after each batch.
    """
    decoder, device, observers = model.get_decoder(), input_device(model), list(observers)
    with attached(model, observers):
        for batch in batches:
            for rows in row_slices(batch, max_rows(model, batch, device)):
                inputs = model_inputs(rows, device)
                for observer in observers:
                    observer.before_forward(counted_positions(rows).to(device))
                decoder(**inputs, use_cache=False)
                for observer in observers:
                    observer.after_forward()
            after_batch()


@contextmanager
def attached(model: PreTrainedModel, observers: Iterable[Observer]) -> Iterator[None]:
    """Let observers read the model's forward passes."""
    with ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer.attach(model))
        yield


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device for the model's inputs."""
    embeddings = model.get_input_embeddings()
    if embeddings.weight.device.type != "meta":
        return embeddings.weight.device
    # Offloaded: the weights have a device only while the module runs, so look at its output.
    return embeddings(torch.zeros(1, 1, dtype=torch.long)).device


def model_inputs(batch: Batch, device: torch.device | str) -> Batch:
    """Return what of a batch the model reads, on its device."""
    return {name: tensor.to(device) for name, tensor in batch.items() if name != COUNTED}


def counted_positions(batch: Batch) -> Tensor:
    """Return the mask of the positions that count, `(rows, tokens)`, 1 at these: all tokens, or those of COUNTED."""
    mask = batch["attention_mask"]
    return mask & batch[COUNTED].to(mask) if COUNTED in batch else mask


def max_rows(model: PreTrainedModel, batch: Batch, device: torch.device) -> int:
    """Return how many rows of a batch may go through the model at once."""
    config = model.config.get_text_config()
    row_bytes = (getattr(config, LAYERS) + 1) * batch["input_ids"].shape[1] * config.hidden_size * model.dtype.itemsize
    return max(1, MAX_STATES_BYTES.get(device.type, MAX_STATES_BYTES["cuda"]) // row_bytes)


def row_slices(batch: Batch, rows: int) -> Iterator[Batch]:
    """Yield a batch in slices of at most `rows` rows, each without the columns that are padding in all its rows."""
    batch = with_position_ids(batch)
    for start in range(0, len(batch["input_ids"]), rows):
        part = {name: tensor[start : start + rows] for name, tensor in batch.items()}
        token_columns = part["attention_mask"].any(dim=0).nonzero()
        if len(token_columns):
            columns = slice(int(token_columns[0]), int(token_columns[-1]) + 1)
            yield {name: tensor[:, columns] for name, tensor in part.items()}


def with_position_ids(batch: Batch) -> Batch:
    """Return a batch whose positions count from each row's first token; by default models count padding as well."""
    mask = batch["attention_mask"]
    if "position_ids" in batch or bool(mask[:, 0].all()):
        return batch
    return batch | {"position_ids": (mask.long().cumsum(dim=1) - 1).clamp(min=0)}
