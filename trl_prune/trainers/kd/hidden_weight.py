"""The weight of the hidden loss: a constant, or the ratio that makes it as large as the divergence."""

import torch
from torch import Tensor


# Upper bound of the ratio; not from the paper.
MAX_WEIGHT = 10.0
# Mean distance of states that are equal up to rounding, below which the weight is 0; not from the paper.
ROUNDING = 1e-6


class HiddenWeight:
    """`L_logits / L_is` of the previous step, without gradient (arXiv 2407.14679, section 3), or a constant.

    The sums are over all batches and ranks of the step, so that the gradient does not depend on how its rows are
    batched. The first weight comes from a forward on the first step's own batches.

    Attributes:
        value: the current weight.
    """

    def __init__(self, constant: float | None):
        self.is_dynamic = constant is None
        self.value = 0.0 if constant is None else float(constant)
        self._is_initialised = not self.is_dynamic
        self._sums: Tensor | None = None

    @property
    def needs_first_measurement(self) -> bool:
        """Whether the weight is dynamic and no losses were observed yet."""
        return not self._is_initialised and self._sums is None

    def observe(self, sums: Tensor, kd_weight: float) -> None:
        """Add a batch's sums over all ranks, in the order of `metrics.SUMS`."""
        if self.is_dynamic:
            num_positions, _, kd_loss, hidden_loss, *_ = sums
            sums = torch.stack([kd_weight * kd_loss, hidden_loss, num_positions])
            self._sums = sums if self._sums is None else self._sums + sums

    def update(self) -> None:
        """Set the weight to the ratio of the losses observed since the last update."""
        if self._sums is not None:
            kd_loss, hidden_loss, num_positions = self._sums.tolist()
            self._sums, self._is_initialised = None, True
            is_measurable = hidden_loss > ROUNDING * num_positions
            self.value = min(kd_loss / hidden_loss, MAX_WEIGHT) if is_measurable else 0.0

    def resume(self, value: float) -> None:
        """Continue with the weight of an interrupted run."""
        self.value, self._sums, self._is_initialised = value, None, True
