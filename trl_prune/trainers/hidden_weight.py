"""The weight of the hidden term: a constant, or what makes it as large as the divergence."""

import torch
from torch import Tensor


# States that agree already make the ratio as large as rounding is small; it then says nothing. The bound is ours.
LARGEST = 10.0
TINY = 1e-30


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
            told = torch.stack([kd_weight * sums[2], sums[3]])
            self._sums = told if self._sums is None else self._sums + told

    def settle(self) -> None:
        """Take on the ratio of what was observed since the last time."""
        if self._sums is not None:
            kd, hidden = self._sums.tolist()
            self._sums, self._known = None, True
            self.value = min(kd / max(hidden, TINY), LARGEST)

    def resume(self, value: float) -> None:
        """Go on with the weight of a broken run."""
        self.value, self._sums, self._known = value, None, True
