"""Refit the linear maps that read removed features: linear regression on calibration activations.

Neurons are read by `down_proj`, heads by `o_proj`, hidden channels by every map after a norm. With `X` a map's dense
inputs, `S` the kept and `R` the removed features, the kept columns become

    argmin_V |X W^T - X_S V^T|^2 + lambda |V - W_S|^2  =  W_S + W_R G_RS (G_SS + lambda I)^-1,   G = X^T X,

with `lambda = ridge * mean(diag G_SS)`: OSSCAR's update of the kept weights (arXiv 2403.12983), regularised towards
the plain cut, so that on the calibration texts it is never worse than the plain cut. If the map has a bias, `G` is the
covariance and the bias absorbs the means. Inputs are the dense model's everywhere: one pass serves every layer, in any
order, and no layer is fitted to the errors of earlier layers on the calibration texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, NEURONS
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.repairs.dense_weights import DenseWeights
from trl_prune.pruning.repairs.fit_cache import FitCache
from trl_prune.pruning.repairs.moments import Moments, ridge_regression
from trl_prune.pruning.surgery.cut import Cut


# The axes whose readers can be refitted.
AXES = (NEURONS, HEADS, HIDDEN)


class LeastSquares:
    """Writes fitted weights and biases in place of cut ones.

    Args:
        fits: the fitted tensors, by the weights' names.
        names: the fitted weights.
        record: the repair's entry in the provenance.
    """

    def __init__(self, fits: FitCache, names: set[str], record: dict):
        self.fits, self.names, self.record = fits, names, record

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return the fitted tensor, or the cut one if there is none."""
        module, _, parameter = name.rpartition(".")
        weight = f"{module}.weight"
        if weight not in self.names or parameter not in ("weight", "bias"):
            return tensor
        return self.fits.load(weight, parameter).to(tensor.dtype)


@dataclass(frozen=True)
class Fit:
    """A linear map fitted on fewer inputs.

    Attributes:
        weight: `(outputs, kept inputs)`.
        shift: what to add to its bias, `(outputs,)`.
        errors: mean squared error of the plain cut and of the fit, over the mean squared output.
    """

    weight: Tensor
    shift: Tensor
    errors: Tensor


def fit(weight: Tensor, moments: Moments, kept: Tensor, ridge: float, centred: bool) -> Fit:
    """Fit a linear map on the kept inputs, to give the output that it gave on all of them.

    Args:
        weight: the dense map, `(outputs, inputs)`.
        moments: of its inputs.
        kept: indices of the kept inputs.
        ridge: regularisation towards the plain cut, as a share of the inputs' mean square.
        centred: the map has a bias to absorb the means.
    """
    products = moments.products(centred)
    weight, kept = weight.to(products), kept.to(products.device)
    is_removed = torch.ones(len(products), dtype=torch.bool, device=products.device).index_fill(0, kept, False)
    removed = is_removed.nonzero().squeeze(1)
    inner, removed_inner = products[kept[:, None], kept], products[removed[:, None], removed]
    target = weight[:, removed] @ products[removed[:, None], kept]
    change = ridge_regression(inner, target, ridge)
    cut_error = _squared_output(weight[:, removed], removed_inner)
    error_change = _squared_output(change, inner) - 2 * (change * target).sum()
    errors = torch.stack([cut_error, error_change]).cumsum(0) / _squared_output(weight, products)
    mean = moments.mean
    shift = weight[:, removed] @ mean[removed] - change @ mean[kept] if centred else torch.zeros_like(weight[:, 0])
    return Fit(weight[:, kept] + change, shift, errors)


def _squared_output(weight: Tensor, products: Tensor) -> Tensor:
    """Return the sum of squares of a map's outputs, from the products of its inputs."""
    return ((weight @ products) * weight).sum()


def weights_to_fit(source: Path, cut: Cut, axes: Iterable[str] = AXES) -> list[str]:
    """Return the names of the weights inside blocks whose input axis is cut.

    Experts, which see only some tokens, and their routers, whose names differ between models and checkpoints, are
    left out.
    """
    names = [name for name in sorted(tensor_files(source)) if name.endswith(".weight") and cut.new_name(name)]
    cut_axes = set(axes) & cut.keep.keys()
    return [name for name in names if input_axis(cut, name) in cut_axes and not _is_of_experts(cut, name)]


def _is_of_experts(cut: Cut, name: str) -> bool:
    return ".experts." in name or any(EXPERTS in parts for parts in cut.family.dim_axes(name))


def group_by_input(names: Iterable[str], cut: Cut) -> dict[str, list[str]]:
    """Return weights that share an input, by the first of them: those in one parent module with one input axis."""
    groups: dict[tuple, list[str]] = {}
    for name in names:
        groups.setdefault((name.rsplit(".", 2)[0], input_axis(cut, name)), []).append(name)
    return {group[0]: group for group in groups.values()}


def input_axis(cut: Cut, name: str) -> str | None:
    """Return the input axis of a linear weight inside the blocks, or None for any other tensor."""
    axes = cut.family.dim_axes(name)
    if cut.layer_of(name) is None or len(axes) != 2 or len(axes[input_dim(cut)]) > 1:
        return None
    return axes[input_dim(cut)][0]


def input_dim(cut: Cut) -> int:
    """Return the input dimension of linear weights."""
    return 0 if cut.family.transposed else 1


def check(source: Path, cut: Cut, *, ridge: float, axes: Sequence[str]) -> None:
    """Check the options, and that the plan removes inputs of a linear map along one of the axes.

    Raises:
        InputError: an option is out of range, or the plan removes none.
    """
    if not ridge > 0:
        raise InputError(f"least_squares.ridge is {ridge}; wanted: a number above 0")
    for axis in axes:
        if axis not in AXES:
            raise InputError(f"least_squares.axes names {axis!r}; allowed: {', '.join(AXES)}")
    if not weights_to_fit(source, cut, axes):
        raise InputError(
            f"least_squares repairs cuts of {', '.join(axes) or 'no axis'}; the plan cuts {', '.join(cut.keep)}"
        )


def num_inputs(cut: Cut) -> int:
    """Return how many inputs the widest refitted map has."""
    return max(cut.sizes[HIDDEN], cut.sizes.get(NEURONS, 0) if NEURONS in cut.keep else 0)


def build(
    source: Path, cut: Cut, calibration: Calibration, *, ridge: float = 0.1, axes: Sequence[str] = AXES
) -> LeastSquares:
    """Fit every reader of a cut axis on the calibration texts.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: model and texts.
        ridge: regularisation towards the plain cut, as a share of the inputs' mean square.
        axes: the axes whose readers are fitted, where the plan cuts them.
    """
    record: dict = {"repair": "least_squares", "ridge": ridge, "axes": list(axes), "tokens": calibration.tokens}
    fits = FitCache(calibration.cache_dir, [record, cut.keep])
    names, dense = weights_to_fit(source, cut, axes), DenseWeights(source)
    groups = group_by_input([name for name in names if name not in fits], cut)
    sizes = {first: dense.shape(first)[input_dim(cut)] for first in groups}
    for first, moments in calibration.input_moments(sizes):
        for name in groups[first]:
            fits.save(name, _fit_weight(name, cut, dense, moments, ridge))
    errors = torch.stack([fits.load(name, "errors") for name in names]).mean(dim=0).tolist()
    record["error"] = dict(zip(("cut", "fitted"), errors, strict=True))
    return LeastSquares(fits, set(names), record)


def _fit_weight(name: str, cut: Cut, dense: DenseWeights, moments: Moments, ridge: float) -> dict[str, Tensor]:
    weight, bias = dense.get(name), dense.get(f"{name.removesuffix('weight')}bias")
    dim = input_dim(cut)
    kept = cut.kept_indices(name, weight.shape)
    outputs = kept[1 - dim] if kept[1 - dim] is not None else torch.arange(weight.shape[1 - dim])
    rows = weight.index_select(1 - dim, outputs)
    fitted = fit(rows.mT if dim == 0 else rows, moments, kept[dim], ridge, bias is not None)
    tensors = {"weight": fitted.weight.mT if dim == 0 else fitted.weight, "errors": fitted.errors}
    if bias is not None:
        tensors["bias"] = bias[outputs].to(fitted.shift) + fitted.shift
    return {key: tensor if key == "errors" else tensor.float() for key, tensor in tensors.items()}
