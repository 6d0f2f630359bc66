"""Means over every learned token of every rank, whatever the batches were."""

import torch
from accelerate import Accelerator
from torch import Tensor

from trl_prune.losses.positions import MASKED, learned_positions
from trl_prune.trainers.kd.student_forward import DistilledOutput
from trl_prune.trainers.teachers.cached import KEYS


SUMMED = ("ce_loss", "kd_loss", "hidden_loss", "kl", "top1_agreement")
IN_EVALUATION = ("kl", "top1_agreement")


def sums_of(output: DistilledOutput) -> Tensor:
    """Return how many positions a batch taught, and the sums over them in the order of `SUMMED`."""
    nothing = output.objective.new_zeros(())
    told = [
        output.label_mask.sum(),
        -output.log_probs.sum(),
        output.divergence.sum(),
        nothing if output.hidden is None else output.hidden,
        output.kl.sum(),
        output.agrees.sum(),
    ]
    return torch.stack([value.detach().float().to(nothing.device) for value in told])


def mask_repeats(inputs: dict, accelerator: Accelerator) -> None:
    """Mask the rows that accelerate repeats to fill the last batch of an evaluation, so that each counts once.

    Args:
        inputs: a rank's batch, one row to a sample; where rows are laid end to end, they stay as they are.
        accelerator: it knows how many rows of all ranks' last batches are the dataset's.
    """
    state, labels = accelerator.gradient_state, inputs["labels"]
    if not state.end_of_dataloader or state.remainder <= 0 or "attention_mask" not in inputs:
        return
    own = max(state.remainder - accelerator.process_index * len(labels), 0)
    if KEYS in inputs:
        inputs[KEYS] = inputs[KEYS][: int(learned_positions(labels).any(1)[:own].sum())]
    labels[own:] = MASKED


class Totals:
    """Sums over batches and ranks, and the means they make."""

    def __init__(self):
        self.sums: Tensor | None = None

    def add(self, sums: Tensor, accelerator: Accelerator) -> Tensor:
        """Add a batch's sums and return those of all ranks; every rank calls this."""
        told = accelerator.reduce(sums, "sum")
        self.sums = told if self.sums is None else self.sums + told
        return told

    def take(self) -> dict[str, float]:
        """Return the means since the last time by name, none where nothing was added."""
        if self.sums is None:
            return {}
        count, *sums = self.sums.tolist()
        self.sums = None
        return {name: value / max(count, 1) for name, value in zip(SUMMED, sums, strict=True)}
