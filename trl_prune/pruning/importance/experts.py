"""Importance of routed experts: how many tokens are routed to them, and the norms of their outputs for these."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from trl_prune.pruning.importance.hooks import decoder_blocks


IMPLEMENTATION = "trl_prune_observed"
# What is summed for each expert over the tokens routed to it, in order: norms of its outputs, the same times the
# router's weights, the tokens, and squares of the weighted norms.
NORMS, WEIGHTED, TOKENS, SQUARES = range(4)
# Classes of experts without interchangeable implementations: they run all experts on all tokens, with inputs that the
# router's weights have scaled, 0 for tokens that are routed elsewhere.
DENSE_EXPERTS = ("Llama4TextExperts",)


class ExpertObserver:
    """Accumulates the output norms of routed experts, through an experts implementation that wraps the model's own.

    Attributes:
        sums: for each block `(4, experts)`, float64: norms, weighted norms, tokens and squares of the weighted norms;
            None if the block has no experts.
    """

    def __init__(self, num_layers: int, sums: list[Tensor | None] | None = None) -> None:
        self.sums: list[Tensor | None] = sums or [None] * num_layers

    @contextmanager
    def attach(self, model: PreTrainedModel) -> Iterator[None]:
        """Set the observed experts implementation on the model; restore its own on exit."""
        layers = {id(module): layer for layer, block in enumerate(decoder_blocks(model)) for module in block.modules()}
        original = model.get_experts_implementation()
        of_text = model.config.get_text_config()._experts_implementation
        ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION] = self._implementation(of_text, layers)
        with ExitStack() as stack:
            stack.callback(ALL_EXPERTS_FUNCTIONS.pop, IMPLEMENTATION)
            stack.callback(model.set_experts_implementation, original)
            for module in model.modules():
                if type(module).__name__ in DENSE_EXPERTS:
                    stack.callback(module.register_forward_hook(self._dense_hook(layers[id(module)])).remove)
            model.set_experts_implementation(IMPLEMENTATION)
            yield

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
            norms = torch.linalg.vector_norm(outputs, dim=-1, dtype=torch.float32)
            measures = _measures(norms, norms * top_k_weights, torch.ones_like(norms))
            self._add(layers[id(module)], module.num_experts, top_k_index, measures)
            return (outputs * top_k_weights[..., None]).sum(dim=1).to(states.dtype)

        return observed

    def _dense_hook(self, layer: int) -> Callable:
        def hook(module: nn.Module, args: tuple, outputs: Tensor) -> None:
            inputs, outputs = (states.view(module.num_experts, -1, states.shape[-1]) for states in (args[0], outputs))
            norms = torch.linalg.vector_norm(outputs, dim=-1, dtype=torch.float32).T
            routed = inputs.any(dim=-1).T.float()
            experts = torch.arange(module.num_experts, device=norms.device).expand_as(norms)
            self._add(layer, module.num_experts, experts, _measures(norms * routed, norms * routed, routed))

        return hook

    def _add(self, layer: int, num_experts: int, top_k_index: Tensor, measures: Tensor) -> None:
        """Add measures, `(4, tokens, top_k)`, of the experts at `top_k_index`, `(tokens, top_k)`."""
        mask = self._mask.to(top_k_index.device).reshape(-1, 1)
        sums = torch.zeros(len(measures), num_experts, dtype=torch.float64, device=top_k_index.device)
        sums.index_add_(1, top_k_index.flatten(), (measures * mask).double().flatten(1))
        previous = self.sums[layer]
        self.sums[layer] = sums if previous is None else previous.to(sums.device).add_(sums)


def _measures(norms: Tensor, weighted: Tensor, tokens: Tensor) -> Tensor:
    return torch.stack([norms, weighted, tokens, weighted.square()])


def expert_importance(sums: Tensor, by: str) -> Tensor:
    """Return the importance of experts, `(..., experts)`, from their sums, `(..., 4, experts)`.

    - `norm`: the mean norm of an expert's output over the tokens routed to it.
    - `reap`: the mean of that norm times the router's weight, `S_j` of REAP (2510.13999).
    - `frequency`: the share of a block's routed tokens that the expert gets.
    - `output`: the squared change of the mixture's output without the expert's term, as a share of the sum over the
      block's experts. That the router would choose other experts is left out.

    All are 0 for experts that no token was routed to, and in blocks without experts.
    """
    norms, weighted, tokens, squares = sums.unbind(dim=-2)
    if by in ("norm", "reap"):
        return (norms if by == "norm" else weighted) / tokens.clamp(min=1)
    shared = tokens if by == "frequency" else squares
    total = shared.sum(dim=-1, keepdim=True)
    return shared / torch.where(total > 0, total, 1)
