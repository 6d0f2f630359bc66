"""What removing blocks does to the model's predictions: measured on texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, MoeModelOutputWithPast

from trl_prune.pruning.choosing.blocks import Loss
from trl_prune.pruning.importance.layers import layers_skipped, mean_loss
from trl_prune.pruning.importance.observation import Batch, input_device, with_positions


# The logits of a few positions at a time: those of all would outweigh the model.
LOGITS_AT_A_TIME = 2**24


def perplexity(model: PreTrainedModel, batches: Sequence[Batch]) -> Loss:
    """Return the loss without blocks as the mean next-token cross-entropy, the logarithm of perplexity, in nats."""

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return mean_loss(model, batches)

    return loss


def kl(model: PreTrainedModel, batches: Sequence[Batch]) -> Loss:
    """Return the loss without blocks as the mean KL divergence of the predictions from the dense model's, in nats.

    The dense model runs once: its last hidden states are kept (in the model's precision, on the CPU), not its logits.
    """
    dense = [states.cpu() for states in final_states(model, batches)]

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return mean_kl(model, dense, final_states(model, batches))

    return loss


MEASURES: dict[str, Callable[[PreTrainedModel, Sequence[Batch]], Loss]] = {"perplexity": perplexity, "kl": kl}


@torch.inference_mode()
def final_states(model: PreTrainedModel, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """Yield for each batch the states that enter the LM head, `(tokens, hidden)`, padding left out."""
    decoder, device = model.get_decoder(), input_device(model)
    for batch in batches:
        inputs = {name: tensor.to(device) for name, tensor in with_positions(batch).items()}
        states = decoder(**inputs, use_cache=False).last_hidden_state
        yield states[inputs["attention_mask"].bool().to(states.device)]


@torch.inference_mode()
def mean_kl(model: PreTrainedModel, dense: Iterable[Tensor], pruned: Iterable[Tensor]) -> float:
    """Return the mean over tokens of `KL(dense || pruned)`, in nats.

    Args:
        model: whose LM head reads both.
        dense: last hidden states, `(tokens, hidden)` each.
        pruned: the same tokens' states of the model with blocks removed.
    """
    total, count, chunk = 0.0, 0, max(1, LOGITS_AT_A_TIME // model.config.vocab_size)
    for wanted, told in zip(dense, pruned, strict=True):
        for one, other in zip(wanted.split(chunk), told.split(chunk), strict=True):
            target = logits_of(model, one.to(other.device)).float().log_softmax(dim=-1)
            guess = logits_of(model, other).float().log_softmax(dim=-1)
            total += nn.functional.kl_div(guess, target, reduction="sum", log_target=True).item()
        count += len(wanted)
    return total / max(count, 1)


@dataclass
class DecoderOutput(MoeModelOutputWithPast, BaseModelOutputWithPastAndCrossAttentions):
    """A decoder's output with the fields of every family's."""


class FixedStates(nn.Module):
    """Hands given states on, in a decoder's place."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_: object, **__: object) -> DecoderOutput:
        """Return the given states."""
        return DecoderOutput(last_hidden_state=self.states)


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return the model's logits for last hidden states, `(tokens, hidden)`, by its own head: scaled and capped."""
    with _decoder_replaced(model, FixedStates(states[None])):
        return model(torch.zeros(1, 1, dtype=torch.long, device=states.device), use_cache=False).logits[0]


@contextmanager
def _decoder_replaced(model: PreTrainedModel, other: nn.Module) -> Iterator[None]:
    decoder = model.get_decoder()
    holder, name = next(
        (module, name) for module in model.modules() for name, child in module.named_children() if child is decoder
    )
    setattr(holder, name, other)
    try:
        yield
    finally:
        setattr(holder, name, decoder)
