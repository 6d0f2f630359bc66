"""How much each routed expert adds: the norm of its output, over the tokens routed to it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from trl_prune.pruning.importance.observation import decoder_blocks


IMPLEMENTATION = "trl_prune_observed"
# What is summed for each expert, in order: the norms of its outputs, the same times the router's weights, its tokens.
NORMS, WEIGHTED, TOKENS = range(3)


class ExpertObserver:
    """Adds up the outputs of routed experts, by an implementation of experts that computes what the model's own does.

    Attributes:
        sums: for each block `(3, experts)`, float64: norms, weighted norms and tokens; None where a block has none.
    """

    def __init__(self, num_layers: int, sums: list[Tensor | None] | None = None) -> None:
        self.sums: list[Tensor | None] = sums or [None] * num_layers

    @contextmanager
    def attached(self, model: PreTrainedModel) -> Iterator[None]:
        """Put the observed implementation of experts in the place of the model's, and back."""
        layers = {id(module): layer for layer, block in enumerate(decoder_blocks(model)) for module in block.modules()}
        usual = model.config._experts_implementation
        ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION] = self._implementation(usual, layers)
        try:
            model.set_experts_implementation(IMPLEMENTATION)
            yield
        finally:
            model.set_experts_implementation(usual)
            del ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION]

    def before(self, mask: Tensor) -> None:
        """Learn which positions are tokens."""
        self._mask = mask

    def after(self) -> None:
        """Add nothing: outputs are summed as they come."""

    def _implementation(self, usual: str, layers: dict[int, int]) -> Callable:
        def observed(module: nn.Module, states: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
            # Each (token, expert) pair as a token of its own with one expert of weight 1 shows that expert's output.
            forward = ALL_EXPERTS_FUNCTIONS.get_interface(usual, inspect.unwrap(type(module).forward))
            pairs = states.repeat_interleave(chosen.shape[1], dim=0)
            single = chosen.reshape(-1, 1)
            outputs = forward(module, pairs, single, torch.ones_like(weights).reshape(-1, 1)).view(*chosen.shape, -1)
            self._add(layers[id(module)], module.num_experts, chosen, torch.stack(self._measured(outputs, weights)))
            return (outputs * weights[..., None]).sum(dim=1).to(states.dtype)

        return observed

    def _measured(self, outputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        norms = torch.linalg.vector_norm(outputs, dim=-1, dtype=torch.float32)
        return norms, norms * weights, torch.ones_like(norms)

    def _add(self, layer: int, experts: int, chosen: Tensor, measured: Tensor) -> None:
        counted = self._mask.to(chosen.device).reshape(-1, 1)
        added = torch.zeros(3, experts, dtype=torch.float64, device=chosen.device)
        added.index_add_(1, chosen.flatten(), (measured * counted).double().flatten(1))
        held = self.sums[layer]
        self.sums[layer] = added if held is None else held.to(added.device).add_(added)
