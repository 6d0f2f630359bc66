"""Ridge regression from moments against torch.linalg.lstsq."""

import pytest
import torch

from trl_prune.errors import InputError
from trl_prune.pruning.repairs.moments import Moments, ridge_regression


def test_ridge_regression_is_least_squares_with_the_penalty_as_extra_rows():
    inputs, targets = torch.randn(50, 6, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    inner, cross = inputs.mT @ inputs, targets.mT @ inputs
    penalty = (0.3 * inner.diagonal().mean()).sqrt() * torch.eye(6, dtype=torch.float64)
    rows = torch.cat([inputs, penalty]), torch.cat([targets, torch.zeros(6, 3, dtype=torch.float64)])
    torch.testing.assert_close(ridge_regression(inner, cross, 0.3), torch.linalg.lstsq(*rows).solution.mT)


def test_features_that_are_always_zero_have_no_weight():
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert torch.equal(ridge_regression(zero, zero[:2], 0.1), zero[:2])


def test_activations_that_overflow_raise():
    moments = Moments.empty(2, torch.device("cpu"))
    moments.add(torch.tensor([[1.0, float("inf")]]))
    with pytest.raises(InputError, match="not finite: load the dense model in bfloat16 or float32"):
        moments.products()
