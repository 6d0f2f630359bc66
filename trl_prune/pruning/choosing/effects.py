"""The measured effect of removing blocks on the model's predictions for calibration texts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions, MoeModelOutputWithPast

from trl_prune.pruning.choosing.blocks import RemovalLoss
from trl_prune.pruning.importance.forward import Batch, input_device, with_position_ids
from trl_prune.pruning.importance.skipped_layers import layers_skipped, mean_loss


# Logits are computed for a few positions at a time: those of all positions would be larger than the model.
MAX_LOGITS = 2**24


def perplexity(model: PreTrainedModel, batches: Sequence[Batch]) -> RemovalLoss:
    """Return a function of the removed blocks: mean next-token cross-entropy in nats (the logarithm of perplexity)."""

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return mean_loss(model, batches)

    return loss


def kl(model: PreTrainedModel, batches: Sequence[Batch]) -> RemovalLoss:
    """Return a function of the removed blocks: mean KL divergence of the predictions from the dense model's, in nats.

    The dense model runs once; its last hidden states are kept on the CPU in the model's dtype, not its logits.
    """
    dense = [states.cpu() for states in final_states(model, batches)]

    def loss(removed: list[int]) -> float:
        with layers_skipped(model, removed):
            return mean_kl(model, dense, final_states(model, batches))

    return loss


EFFECTS: dict[str, Callable[[PreTrainedModel, Sequence[Batch]], RemovalLoss]] = {"perplexity": perplexity, "kl": kl}


@torch.inference_mode()
def final_states(model: PreTrainedModel, batches: Iterable[Batch]) -> Iterator[Tensor]:
    """Yield the input of the LM head for each batch, `(tokens, hidden_size)`, without padding."""
    decoder, device = model.get_decoder(), input_device(model)
    for batch in batches:
        inputs = {name: tensor.to(device) for name, tensor in with_position_ids(batch).items()}
        states = decoder(**inputs, use_cache=False).last_hidden_state
        yield states[inputs["attention_mask"].bool().to(states.device)]


@torch.inference_mode()
def mean_kl(model: PreTrainedModel, dense: Iterable[Tensor], pruned: Iterable[Tensor]) -> float:
    """Return the mean over tokens of `KL(dense || pruned)`, in nats.

    Args:
        model: the model whose LM head is applied to both.
        dense: last hidden states of the dense model, `(tokens, hidden_size)` for each batch.
        pruned: those of the model with blocks removed, for the same tokens.
    """
    total, count, chunk_size = 0.0, 0, max(1, MAX_LOGITS // model.config.get_text_config().vocab_size)
    for dense_states, pruned_states in zip(dense, pruned, strict=True):
        chunks = zip(dense_states.split(chunk_size), pruned_states.split(chunk_size), strict=True)
        for dense_chunk, pruned_chunk in chunks:
            target = logits_of(model, dense_chunk.to(pruned_chunk.device)).float().log_softmax(dim=-1)
            log_probs = logits_of(model, pruned_chunk).float().log_softmax(dim=-1)
            total += nn.functional.kl_div(log_probs, target, reduction="sum", log_target=True).item()
        count += len(dense_states)
    return total / max(count, 1)


@dataclass
class DecoderOutput(MoeModelOutputWithPast, BaseModelOutputWithPastAndCrossAttentions):
    """A decoder's output with the fields that any family's LM head reads."""


class FixedStates(nn.Module):
    """A decoder that returns given last hidden states."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states

    def forward(self, *_: object, **__: object) -> DecoderOutput:
        """Return the given states."""
        return DecoderOutput(last_hidden_state=self.states)


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return the model's logits, `(tokens, vocab)`, for last hidden states, `(tokens, hidden_size)`.

    They go through the model's own forward pass, which scales and caps logits where the family does.
    """
    with _decoder_replaced(model, FixedStates(states[None])):
        return model(torch.zeros(1, 1, dtype=torch.long, device=states.device), use_cache=False).logits[0]


@contextmanager
def _decoder_replaced(model: PreTrainedModel, replacement: nn.Module) -> Iterator[None]:
    decoder = model.get_decoder()
    parent, name = next(
        (module, name) for module in model.modules() for name, child in module.named_children() if child is decoder
    )
    setattr(parent, name, replacement)
    try:
        yield
    finally:
        setattr(parent, name, decoder)
