"""Importance of routed experts: the norm of an expert's output, over the tokens routed to it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from trl_prune.pruning.importance.hooks import decoder_blocks


IMPLEMENTATION = "trl_prune_observed"
# What is summed for each expert, in order: norms of its outputs, the same times the router's weights, tokens.
NORMS, WEIGHTED, TOKENS = range(3)


class ExpertObserver:
    """Accumulates the output norms of routed experts, through an experts implementation that wraps the model's own.

    Attributes:
        sums: for each block `(3, experts)`, float64: norms, weighted norms and tokens; None if the block has none.
    """

    def __init__(self, num_layers: int, sums: list[Tensor | None] | None = None) -> None:
        self.sums: list[Tensor | None] = sums or [None] * num_layers

    @contextmanager
    def attach(self, model: PreTrainedModel) -> Iterator[None]:
        """Set the observed experts implementation on the model; restore its own on exit."""
        layers = {id(module): layer for layer, block in enumerate(decoder_blocks(model)) for module in block.modules()}
        original = model.config._experts_implementation
        ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION] = self._implementation(original, layers)
        try:
            model.set_experts_implementation(IMPLEMENTATION)
            yield
        finally:
            model.set_experts_implementation(original)
            del ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION]

    def before_forward(self, attention_mask: Tensor) -> None:
        """Store which positions are tokens."""
        self._mask = attention_mask

    def after_forward(self) -> None:
        """Do nothing: outputs are summed in the experts implementation."""

    def _implementation(self, original: str, layers: dict[int, int]) -> Callable:
        def observed(module: nn.Module, states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
            # Each (token, expert) pair runs as a separate token with one expert of weight 1: its output alone.
            forward = ALL_EXPERTS_FUNCTIONS.get_interface(original, inspect.unwrap(type(module).forward))
            repeated = states.repeat_interleave(top_k_index.shape[1], dim=0)
            ones = torch.ones_like(top_k_weights).reshape(-1, 1)
            outputs = forward(module, repeated, top_k_index.reshape(-1, 1), ones).view(*top_k_index.shape, -1)
            self._add(layers[id(module)], module.num_experts, top_k_index, _measures(outputs, top_k_weights))
            return (outputs * top_k_weights[..., None]).sum(dim=1).to(states.dtype)

        return observed

    def _add(self, layer: int, num_experts: int, top_k_index: Tensor, measures: Tensor) -> None:
        """Add measures, `(3, tokens, top_k)`, of the experts at `top_k_index`, `(tokens, top_k)`."""
        mask = self._mask.to(top_k_index.device).reshape(-1, 1)
        sums = torch.zeros(3, num_experts, dtype=torch.float64, device=top_k_index.device)
        sums.index_add_(1, top_k_index.flatten(), (measures * mask).double().flatten(1))
        previous = self.sums[layer]
        self.sums[layer] = sums if previous is None else previous.to(sums.device).add_(sums)


def _measures(outputs: Tensor, top_k_weights: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(outputs, dim=-1, dtype=torch.float32)
    return torch.stack([norms, norms * top_k_weights, torch.ones_like(norms)])
