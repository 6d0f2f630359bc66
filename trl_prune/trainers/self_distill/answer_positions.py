"""On CPUs, run the LM head only at positions that have a label.

TRL's fused head drops masked positions on GPUs only; elsewhere it keeps shapes fixed for compilers, which a CPU does
not use. The time this saves is in benchmarks/README.md.
"""

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.losses.positions import learned_positions


def skip_masked_positions(model: PreTrainedModel) -> None:
    """Make TRL's fused head score only the positions whose next token has a label, joined into one row.

    The sums over `log_probs`, `entropy`, `is_top1` and `label_mask`, all that SFTTrainer reads, stay the same.

    Args:
        model: a causal LM with TRL's fused head, outside any PEFT or distributed wrapper.
    """
    fused_forward = model.forward

    @functools.wraps(fused_forward)
    def forward(
        self: PreTrainedModel,
        *args: object,
        labels: Tensor | None = None,
        fused_lm_head: bool = False,
        **kwargs: object,
    ) -> ModelOutput:
        if labels is not None:
            kwargs["labels"] = labels
        if not fused_lm_head:
            return fused_forward(*args, **kwargs)
        learned = _learned_positions(labels) if kwargs.get("shift_labels") is None else None
        if learned is None:
            return fused_forward(*args, fused_lm_head=True, **kwargs)
        kwargs["labels"] = None
        with _select_positions(self.base_model, learned):
            return fused_forward(*args, fused_lm_head=True, shift_labels=labels[:, 1:][learned][None], **kwargs)

    model.forward = types.MethodType(forward, model)


def _learned_positions(labels: Tensor | None) -> Tensor | None:
    """Return the mask of positions whose next token has a label, `(batch, tokens - 1)`; None if empty or on a GPU."""
    if labels is None or labels.device.type != "cpu":
        return None
    learned = learned_positions(labels)
    return learned if learned.any() else None


@contextmanager
def _select_positions(backbone: nn.Module, positions: Tensor) -> Iterator[None]:
    """Make the backbone return the states of these positions only, `(1, positions, hidden_size)`."""

    def select(_: nn.Module, __: tuple, output: ModelOutput) -> ModelOutput:
        output.last_hidden_state = output.last_hidden_state[:, :-1][positions][None]
        return output

    handle = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
