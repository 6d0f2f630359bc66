"""The LM head: how a causal LM computes logits from its final states."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


# The config keys of a factor on the logits, by family (Cohere, Muse Glimmer, Falcon-H1).
SCALE_KEYS = ("logit_scale", "output_multiplier", "lm_head_multiplier")


@dataclass(frozen=True)
class LMHead:
    """`logits = softcap * tanh(scale * (states @ weight.T + bias) / softcap)`.

    Attributes:
        weight: `(vocab_size, hidden_size)`.
        bias: `(vocab_size,)`, or None.
        scale: factor on the logits.
        softcap: bound of the logits; None where they are unbounded.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def truncated(self, vocab_size: int | None) -> "LMHead":
        """Return the head of the first `vocab_size` ids, or of all where None."""
        return self.map(lambda tensor: tensor[:vocab_size])

    def map(self, function: Callable[[Tensor], Tensor]) -> "LMHead":
        """Return the head with a function applied to its tensors."""
        return replace(self, weight=function(self.weight), bias=None if self.bias is None else function(self.bias))

    def logits(self, states: Tensor) -> Tensor:
        """Return float32 logits, `(..., vocab_size)`, of final states, `(..., hidden_size)`."""
        logits = nn.functional.linear(states, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def lm_head(model: PreTrainedModel) -> LMHead:
    """Return a model's head; its tensors are the model's, not copies."""
    module = model.get_output_embeddings()
    config = model.config.get_text_config()
    softcap = config.to_dict().get("final_logit_softcapping")
    return LMHead(module.weight, module.bias, logit_scale(config), softcap)


def logit_scale(config: PreTrainedConfig) -> float:
    """Return a model's factor on its logits, applied before any softcap."""
    values = config.to_dict()
    scale = next((values[key] for key in SCALE_KEYS if values.get(key) is not None), None)
    if scale is not None:
        return float(scale)
    divisor = values.get("logits_scaling")
    if divisor is None:
        return 1.0
    # Granite and MiniCPM3 divide by it, HyperCLOVA X multiplies.
    return float(divisor) if config.model_type == "hyperclovax" else 1 / divisor
