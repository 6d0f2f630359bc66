"""How a causal LM makes logits of its final states."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel


# The config keys under which families keep a factor on their logits (Cohere, Muse Glimmer, Falcon-H1).
FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")


@dataclass(frozen=True)
class LMHead:
    """`logits = softcap * tanh(scale * (states @ weight.T + bias) / softcap)`.

    Attributes:
        weight: `(vocab_size, hidden_size)`.
        bias: `(vocab_size,)`, or None.
        scale: factor on the logits.
        softcap: bound of the logits, None where they are not bounded.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def first(self, count: int | None) -> "LMHead":
        """Return the head of the first ids, `count` of them, or of all."""
        return self.each(lambda part: part[:count])

    def each(self, change: Callable[[Tensor], Tensor]) -> "LMHead":
        """Return the head with its tensors changed."""
        return replace(self, weight=change(self.weight), bias=None if self.bias is None else change(self.bias))

    def logits(self, states: Tensor) -> Tensor:
        """Return float32 logits, `(..., vocab_size)`, of final states, `(..., hidden_size)`."""
        logits = nn.functional.linear(states, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def lm_head(model: PreTrainedModel) -> LMHead:
    """Return a model's head; its tensors are the model's own, not copies."""
    module = model.get_output_embeddings()
    config = model.config.get_text_config()
    softcap = config.to_dict().get("final_logit_softcapping")
    return LMHead(module.weight, module.bias, logit_scale(config), softcap)


def logit_scale(config: PreTrainedConfig) -> float:
    """Return the factor that a family puts on its logits before any bound."""
    told = config.to_dict()
    found = next((told[name] for name in FACTORS if told.get(name) is not None), None)
    if found is not None:
        return float(found)
    divisor = told.get("logits_scaling")
    if divisor is None:
        return 1.0
    # Granite and MiniCPM3 divide by it, HyperCLOVA X multiplies.
    return float(divisor) if config.model_type == "hyperclovax" else 1 / divisor
