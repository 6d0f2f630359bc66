"""On CPUs, run the LM head only where there is an answer to learn.

TRL's fused head drops masked positions on GPUs alone; elsewhere it keeps shapes fixed, for compilers that a CPU does
not use. What that saves is in benchmarks/README.md.
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
    """Make TRL's fused head score the positions whose next token is learned, in one row, instead of all of them.

    Sums over `log_probs`, `entropy`, `is_top1` and `label_mask`, which are all that SFTTrainer reads, stay the same.

    Args:
        model: a causal LM that has TRL's fused head already, outside any PEFT or distributed wrapper.
    """
    fused = model.forward

    @functools.wraps(fused)
    def forward(
        self: PreTrainedModel,
        *args: object,
        labels: Tensor | None = None,
        fused_lm_head: bool = False,
        **kwargs: object,
    ) -> ModelOutput:
        if labels is not None:
            kwargs["labels"] = labels
        wanted = _learned(labels) if fused_lm_head and kwargs.get("shift_labels") is None else None
        if wanted is None or labels.device.type != "cpu":
            return fused(*args, fused_lm_head=fused_lm_head, **kwargs) if fused_lm_head else fused(*args, **kwargs)
        kwargs["labels"] = None
        with _gathered(self.base_model, wanted):
            return fused(*args, fused_lm_head=True, shift_labels=labels[:, 1:][wanted][None], **kwargs)

    model.forward = types.MethodType(forward, model)


def _learned(labels: Tensor | None) -> Tensor | None:
    """Return the mask of positions whose next token is learned, `(batch, tokens - 1)`, or None where none is."""
    if labels is None:
        return None
    wanted = learned_positions(labels)
    return wanted if wanted.any() else None


@contextmanager
def _gathered(backbone: nn.Module, wanted: Tensor) -> Iterator[None]:
    """Let the backbone hand on the wanted positions' states only, `(1, positions, hidden)`."""

    def gather(_: nn.Module, __: tuple, output: ModelOutput) -> ModelOutput:
        output.last_hidden_state = output.last_hidden_state[:, :-1][wanted][None]
        return output

    handle = backbone.register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()
