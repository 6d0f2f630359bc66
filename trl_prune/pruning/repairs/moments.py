"""Second moments of activations as running sums, and ridge regression from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trl_prune.errors import InputError


@dataclass
class Moments:
    """Running sums over positions: count, sum and second moments, float64.

    Products are computed in float32 (float64 if the activations are), one batch at a time, and summed in float64, so
    that neither the order nor the split of the batches matters beyond float32 rounding.

    Attributes:
        gram: sum of `x x^T`, `(features, features)`.
        total: sum of `x`, `(features,)`.
        count: number of positions.
    """

    gram: Tensor
    total: Tensor
    count: int = 0

    @classmethod
    def empty(cls, features: int, device: torch.device) -> "Moments":
        """Return sums over no positions."""
        zeros = torch.zeros(features + 1, features, dtype=torch.float64, device=device)
        return cls(zeros[1:], zeros[0])

    def add(self, activations: Tensor) -> None:
        """Add positions, `(positions, features)`."""
        activations = activations if activations.dtype == torch.float64 else activations.float()
        self.gram += activations.mT @ activations
        self.total += activations.sum(dim=0, dtype=torch.float64)
        self.count += len(activations)

    def products(self, centred: bool = False) -> Tensor:
        """Return the sum of `x x^T`, or of `(x - mean)(x - mean)^T`.

        Raises:
            InputError: the activations overflowed.
        """
        if not self.total.isfinite().all():
            raise InputError(
                "activations on the calibration texts are not finite: load the dense model in bfloat16 or float32"
            )
        return torch.addr(self.gram, self.total, self.total, alpha=-1 / self.count) if centred else self.gram

    @property
    def mean(self) -> Tensor:
        """The mean of `x`."""
        return self.total / self.count


def ridge_regression(inner: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """Return `cross (inner + lambda I)^-1` with `lambda = ridge * mean(diag inner)`.

    Args:
        inner: sum of `x x^T`, `(features, features)`.
        cross: sum of `y x^T`, `(targets, features)`.
        ridge: regularisation strength, above 0.
    """
    regularised = inner.clone()
    # The minimum keeps the matrix invertible if all features are zero.
    regularised.diagonal().add_(ridge * inner.diagonal().mean().clamp(min=torch.finfo(inner.dtype).tiny))
    return torch.cholesky_solve(cross.mT, torch.linalg.cholesky(regularised)).mT
