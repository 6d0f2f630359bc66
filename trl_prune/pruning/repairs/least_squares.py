"""After features go, the maps that read them are fitted anew: linear regression on calibration activations.

Neurons are read by `down_proj`, heads by `o_proj`, hidden channels by everything behind a norm. With `X` a map's dense
inputs, `S` the features that stay and `R` those that go, the kept columns become

    argmin_V |X W^T - X_S V^T|^2 + lambda |V - W_S|^2  =  W_S + W_R G_RS (G_SS + lambda I)^-1,   G = X^T X,

with `lambda = ridge * mean(diag G_SS)`: OSSCAR's update of the survivors (arXiv 2403.12983), drawn towards the plain
cut, so that on the calibration texts it is never worse than that. Where the map has a bias, `G` is the covariance and
the bias takes up the means. Inputs are the dense model's everywhere: one pass serves every layer, in any order, and no
layer learns to make up for the errors of those before it on the texts at hand.
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
from trl_prune.pruning.repairs.moments import Moments, ridge_regression
from trl_prune.pruning.repairs.scratch import Scratch
from trl_prune.pruning.surgery.cut import Cut


# The axes whose readers are fitted anew.
AXES = (NEURONS, HEADS, HIDDEN)


class LeastSquares:
    """Writes fitted weights and biases in the place of cut ones.

    Args:
        scratch: where the fits lie, by the weights' names.
        names: the fitted weights.
        record: what the provenance says.
    """

    def __init__(self, scratch: Scratch, names: set[str], record: dict):
        self.scratch, self.names, self.record = scratch, names, record

    def tensor(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return the fitted tensor, or the cut one where there is none."""
        stem, _, kind = name.rpartition(".")
        weight = f"{stem}.weight"
        if weight not in self.names or kind not in ("weight", "bias"):
            return tensor
        return self.scratch.load(weight, kind).to(tensor.dtype)


@dataclass(frozen=True)
class Fit:
    """A map fitted on fewer inputs.

    Attributes:
        weight: `(outputs, kept inputs)`.
        shift: what its bias grows by, `(outputs,)`.
        errors: mean squared error of the plain cut and of the fit, over the mean squared output.
    """

    weight: Tensor
    shift: Tensor
    errors: Tensor


def fit(weight: Tensor, moments: Moments, kept: Tensor, ridge: float, centred: bool) -> Fit:
    """Fit a linear map on the inputs that stay, so that it gives what it gave on all of them.

    Args:
        weight: the dense map, `(outputs, inputs)`.
        moments: of its inputs.
        kept: indices of the inputs that stay.
        ridge: strength of the pull towards the plain cut, as a share of the inputs' mean square.
        centred: the map has a bias to take up the means.
    """
    products = moments.products(centred)
    weight, kept = weight.to(products), kept.to(products.device)
    gone = torch.ones(len(products), dtype=torch.bool, device=products.device).index_fill(0, kept, False).nonzero()
    inner, cross, lost = products[kept[:, None], kept], products[gone, kept], weight[:, gone.squeeze(1)]
    target = lost @ cross
    change = ridge_regression(inner, target, ridge)
    errors = torch.stack([_power(lost, products[gone, gone.mT]), _power(change, inner) - 2 * (change * target).sum()])
    mean = moments.mean
    shift = lost @ mean[gone.squeeze(1)] - change @ mean[kept] if centred else torch.zeros_like(weight[:, 0])
    return Fit(weight[:, kept] + change, shift, errors.cumsum(0) / _power(weight, products))


def _power(weight: Tensor, products: Tensor) -> Tensor:
    return ((weight @ products) * weight).sum()


def refitted(source: Path, cut: Cut, axes: Iterable[str] = AXES) -> list[str]:
    """Return the weights inside blocks that read a cut axis.

    Experts, which see only some tokens, and their routers, which models name otherwise than checkpoints, are left out.
    """
    names = [name for name in sorted(tensor_files(source)) if name.endswith(".weight") and cut.name(name) is not None]
    wanted = set(axes) & cut.keep.keys()
    return [name for name in names if input_axis(cut, name) in wanted and not _is_of_experts(cut, name)]


def _is_of_experts(cut: Cut, name: str) -> bool:
    return ".experts." in name or any(EXPERTS in parts for parts in cut.family.axis_dims(name))


def by_input(names: Iterable[str], cut: Cut) -> dict[str, list[str]]:
    """Return weights by the first one that reads the same: side by side in one module, along one axis."""
    groups: dict[tuple, list[str]] = {}
    for name in names:
        groups.setdefault((name.rsplit(".", 2)[0], input_axis(cut, name)), []).append(name)
    return {group[0]: group for group in groups.values()}


def input_axis(cut: Cut, name: str) -> str | None:
    """Return the axis that a linear weight inside the blocks reads, or None for any other tensor."""
    axes = cut.family.axis_dims(name)
    if cut.layer_of(name) is None or len(axes) != 2 or len(axes[input_dim(cut)]) > 1:
        return None
    return axes[input_dim(cut)][0]


def input_dim(cut: Cut) -> int:
    """Return the dimension of a linear weight that its inputs go along."""
    return 0 if cut.family.transposed else 1


def check(source: Path, cut: Cut, *, ridge: float, axes: Sequence[str]) -> None:
    """Check the options, and that the plan removes something of these axes that a linear map reads.

    Raises:
        InputError: an option is out of range, or it does not.
    """
    if not ridge > 0:
        raise InputError(f"least_squares.ridge is {ridge}; wanted: a number above 0")
    for axis in axes:
        if axis not in AXES:
            raise InputError(f"least_squares.axes names {axis!r}; allowed: {', '.join(AXES)}")
    if not refitted(source, cut, axes):
        raise InputError(
            f"least_squares repairs cuts of {', '.join(axes) or 'no axis'}; the plan cuts {', '.join(cut.keep)}"
        )


def build(
    source: Path, cut: Cut, calibration: Calibration, *, ridge: float = 0.1, axes: Sequence[str] = AXES
) -> LeastSquares:
    """Fit every reader of a cut axis on the calibration texts.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan at work.
        calibration: model and texts.
        ridge: strength of the pull towards the plain cut, as a share of the inputs' mean square.
        axes: the axes whose readers are fitted; those that the plan does not cut have none.
    """
    record: dict = {"repair": "least_squares", "ridge": ridge, "axes": list(axes), "tokens": calibration.tokens}
    scratch = Scratch(calibration.scratch, [record, cut.keep])
    names, dense = refitted(source, cut, axes), DenseWeights(source)
    groups = by_input([name for name in names if name not in scratch], cut)
    sizes = {first: dense.shape(first)[input_dim(cut)] for first in groups}
    for first, moments in calibration.input_moments(sizes):
        for name in groups[first]:
            scratch.save(name, _fitted(name, cut, dense, moments, ridge))
    errors = torch.stack([scratch.load(name, "errors") for name in names]).mean(dim=0).tolist()
    record["error"] = dict(zip(("cut", "fitted"), errors, strict=True))
    return LeastSquares(scratch, set(names), record)


def _fitted(name: str, cut: Cut, dense: DenseWeights, moments: Moments, ridge: float) -> dict[str, Tensor]:
    weight, bias = dense.get(name), dense.get(f"{name.removesuffix('weight')}bias")
    dim = input_dim(cut)
    rows = cut.rows(name, weight.shape)
    outputs = rows[1 - dim] if rows[1 - dim] is not None else torch.arange(weight.shape[1 - dim])
    maps = weight.index_select(1 - dim, outputs)
    told = fit(maps.mT if dim == 0 else maps, moments, rows[dim], ridge, bias is not None)
    tensors = {"weight": told.weight.mT if dim == 0 else told.weight, "errors": told.errors}
    if bias is not None:
        tensors["bias"] = bias[outputs].to(told.shift) + told.shift
    return {key: tensor if key == "errors" else tensor.float() for key, tensor in tensors.items()}
