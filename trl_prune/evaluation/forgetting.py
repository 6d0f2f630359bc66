"""How far a model has moved from the dense one on texts that no training saw: KL divergence and cross-entropy."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.losses.distill_head import distill
from trl_prune.losses.head_block import Objective
from trl_prune.losses.lm_head import lm_head
from trl_prune.losses.targets import HeadTarget


@dataclass(frozen=True)
class Forgetting:
    """A model's distance from the dense model on held-out text, in nats per token.

    Attributes:
        kl: mean KL(dense || model) of the next token's distributions over the vocabulary.
        cross_entropy: the model's mean cross-entropy on the text.
        tokens: the number of predicted tokens, over which both are means.
    """

    kl: float
    cross_entropy: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """The exponential of the cross-entropy."""
        return math.exp(self.cross_entropy)


@torch.no_grad()
def measure_forgetting(
    model: PreTrainedModel, dense: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]
) -> Forgetting:
    """Compare a model with the dense one at every token of some texts but each text's first.

    Both models' logits exist for a tile of tokens at a time only (`losses.distill_head`).

    Args:
        model: the model, in eval mode; its vocabulary is the dense one's.
        dense: the dense model, in eval mode, on the same device; the model itself has a KL of exactly 0.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`, padded on the right.
    """
    kl, cross_entropy, tokens = 0.0, 0.0, 0
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        predicted = inputs["attention_mask"][:, 1:].bool()
        states = _states(model, inputs, predicted)
        dense_states = states if dense is model else _states(dense, inputs, predicted)
        labels = inputs["input_ids"][:, 1:][predicted]
        output = distill(states, lm_head(model), labels, HeadTarget(dense_states, lm_head(dense)), Objective())
        kl += output.kl.double().sum().item()
        cross_entropy -= output.log_probs.double().sum().item()
        tokens += len(labels)
    return Forgetting(kl / max(tokens, 1), cross_entropy / max(tokens, 1), tokens)


def _states(model: PreTrainedModel, inputs: Mapping[str, Tensor], predicted: Tensor) -> Tensor:
    """Return the final states before each predicted token, `(N, hidden_size)`."""
    return model.get_decoder()(**inputs, use_cache=False).last_hidden_state[:, :-1][predicted]
