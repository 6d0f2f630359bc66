"""The weight of the hidden term: a constant, or what makes it as large as the divergence."""

import torch
from torch import Tensor


# The ratio's bound, and the mean distance of states that agree but for rounding: the ratio would say no more than how
# small rounding is. Both are ours.
LARGEST = 10.0
ROUNDING = 1e-6


class HiddenWeight:
    """`L_logits / L_is`, without gradient (arXiv 2407.14679, section 3), or a constant.

    The ratio is that of the whole step before, over all its batches and ranks: so that a step's gradient is the same
    however its rows are dealt out. It starts from a measurement of the first step's own batches.

    Attributes:
        value: the weight that holds.
    """

    def __init__(self, told: float | None):
        self.is_dynamic = told is None
        self.value = 0.0 if self.is_dynamic else float(told)
        self._known = not self.is_dynamic
        self._sums: Tensor | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nothing was measured yet."""
        return not self._known and self._sums is None

    def observe(self, sums: Tensor, kd_weight: float) -> None:
        """Add a batch's sums over all ranks, as `kd_metrics.sums_of` orders them."""
        if self.is_dynamic:
            told = torch.stack([kd_weight * sums[2], sums[3], sums[0]])
            self._sums = told if self._sums is None else self._sums + told

    def update(self) -> None:
        """Take on the ratio of what was observed since the last time."""
        if self._sums is not None:
            kd, hidden, positions = self._sums.tolist()
            self._sums, self._known = None, True
            self.value = min(kd / hidden, LARGEST) if hidden > ROUNDING * positions else 0.0

    def resume(self, value: float) -> None:
        """Go on with the weight of a broken run."""
        self.value, self._sums, self._known = value, None, True
