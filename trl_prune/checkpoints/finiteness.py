"""Weights that are no numbers: NaN and infinity pass through every step of pruning without an error."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trl_prune.errors import InputError


if TYPE_CHECKING:
    from torch import Tensor

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")


def is_finite(tensor: "Tensor") -> bool:
    """Return whether a tensor has neither NaN nor infinity; integers and packed weights are not looked into."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in FLOAT_TYPES or tensor.is_meta or not tensor.numel():
        return True
    low, high = tensor.detach().aminmax()  # needs no memory, and both are NaN if any value is
    return bool((low.isfinite() & high.isfinite()).item())


def check_finite(tensors: Iterable[tuple[str, "Tensor"]], model: object) -> None:
    """Check that every value of a model's weights is a number.

    Args:
        tensors: names and weights.
        model: the model's folder or name, for the error.

    Raises:
        InputError: one is NaN or infinite; the sentence names its weight.
    """
    for name, tensor in tensors:
        if not is_finite(tensor):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{model}: the weight {name} has values that are NaN or infinite in {dtype}; the model is damaged, or "
                f"its values are too large for {dtype}"
            )
