"""Metrics averaged over the learned tokens of all ranks and batches."""

import torch
from accelerate import Accelerator
from torch import Tensor

from trl_prune.trainers.kd.student_forward import DistillationOutput


METRICS = ("ce_loss", "kd_loss", "hidden_loss", "kl", "top1_agreement")
# The order of a batch's sums.
SUMS = ("num_positions", *METRICS)
# Metrics that the student's forward computes without gradient only.
EVALUATION_ONLY = ("kl", "top1_agreement")


def metric_sums(output: DistillationOutput) -> Tensor:
    """Return a batch's number of learned positions and the metrics summed over them, `(len(SUMS),)` float32."""
    device = output.objective.device
    sums = [
        output.label_mask.sum(),
        -output.log_probs.sum(),
        output.divergence.sum(),
        torch.zeros(()) if output.hidden_loss is None else output.hidden_loss,
        output.kl.sum(),
        output.agrees.sum(),
    ]
    return torch.stack([value.detach().float().to(device) for value in sums])


class RunningMeans:
    """Token-weighted means of metrics over batches and ranks."""

    def __init__(self):
        self._sums: Tensor | None = None

    def add(self, sums: Tensor, accelerator: Accelerator) -> Tensor:
        """Add a batch's sums and return those of all ranks; every rank calls this."""
        sums = accelerator.reduce(sums, "sum")
        self._sums = sums if self._sums is None else self._sums + sums
        return sums

    def pop(self) -> dict[str, float]:
        """Return the means since the last call by name; empty if nothing was added."""
        if self._sums is None:
            return {}
        num_positions, *sums = self._sums.tolist()
        self._sums = None
        return {name: value / max(num_positions, 1) for name, value in zip(METRICS, sums, strict=True)}
