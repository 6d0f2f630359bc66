"""After a run of blocks goes, one linear map stands for it, folded into the MLP before it (ReplaceMe, 2505.02819).

Let `M` be the MLP output of the block before the run, `x` the stream after it and `y` the stream after the run. The
run moves the stream by `y - x`; regressed on `M`, `y - x = K M + c`. As `x` holds `r M` (`r` is 1 but for Granite's
residual multiplier), `T = I + K / r` on the MLP's output makes `x` into `y` as far as a linear map of `M` can:

    K = D^T M (M^T M + lambda I)^-1,   D = y - x,   lambda = ridge * mean(diag M^T M).

The pull is towards `K = 0`, which is the plain cut, so that on the calibration texts the map is never worse. `T` goes
into `down_proj`; the checkpoint keeps its format, and so `c` only goes where the format has a bias.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.observation import Site, decoder_blocks
from trl_prune.pruning.repairs.calibration import Calibration, groups_within
from trl_prune.pruning.repairs.least_squares import input_axis, input_dim
from trl_prune.pruning.repairs.moments import Moments, ridge_regression
from trl_prune.pruning.repairs.scratch import Scratch
from trl_prune.pruning.surgery.cut import Cut


# Norms between the MLP's output and the stream.
AFTER_MLP = re.compile(r"\.post_(feedforward|mlp)_layernorm\.")


class LinearMap:
    """Folds the map of each removed run into the MLP output before it.

    Args:
        cut: the plan at work.
        scratch: where the maps lie, by the weights' names.
        names: the weights that take a map.
        record: what the provenance says.
    """

    def __init__(self, cut: Cut, scratch: Scratch, names: set[str], record: dict):
        self.cut, self.scratch, self.names, self.record = cut, scratch, names, record

    def tensor(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return `T W`, or `T b + c / r`; other tensors as they are."""
        stem, _, kind = name.rpartition(".")
        weight = f"{stem}.weight"
        if weight not in self.names or kind not in ("weight", "bias"):
            return tensor
        told = self.scratch.load(weight, "map")
        if kind == "bias":
            return (told @ tensor.float() + self.scratch.load(weight, "shift")).to(tensor.dtype)
        mapped = tensor.float() @ told.mT if input_dim(self.cut) == 0 else told @ tensor.float()
        return mapped.to(tensor.dtype)


def removed_runs(cut: Cut) -> list[tuple[int, int]]:
    """Return the first block of each removed run and the first one after it."""
    kept = [-1, *cut.keep[LAYERS], cut.sizes[LAYERS]]
    return [(before + 1, after) for before, after in pairwise(kept) if after > before + 1]


def check(source: Path, cut: Cut, *, ridge: float) -> None:
    """Check that there is an MLP output before each removed run that a map can be folded into.

    Raises:
        InputError: `ridge` is not above 0, no blocks go, the first one goes, experts or a norm stand between.
    """
    if not ridge > 0:
        raise InputError(f"linear_map.ridge is {ridge}; wanted: a number above 0")
    runs = removed_runs(cut)
    if not runs:
        raise InputError("linear_map repairs cuts of num_hidden_layers; the plan keeps every block")
    if runs[0][0] == 0:
        raise InputError("linear_map cannot repair a cut of the first block: there is no MLP before it to fold into")
    names = sorted(tensor_files(source))
    for start, _ in runs:
        _check_foldable(start - 1, names, cut)


def _check_foldable(layer: int, names: list[str], cut: Cut) -> None:
    family = cut.config.model_type
    inside = [name for name in names if cut.layer_of(name) == layer]
    if any(AFTER_MLP.search(name) for name in inside) or not getattr(cut.config, "do_layer_norm_before", True):
        raise InputError(
            f"linear_map cannot repair {family}: a norm stands between its MLPs' output and the stream, and no linear "
            f"map passes through it"
        )
    if len([name for name in inside if _writes(cut, name)]) != 1:
        raise InputError(f"linear_map cannot repair {family}: block {layer} has experts, no one MLP output")


def _writes(cut: Cut, name: str) -> bool:
    return name.endswith(".weight") and input_axis(cut, name) == NEURONS


def mlp_output(layer: int, source: Path, cut: Cut) -> str:
    """Return the name of a block's MLP output weight."""
    return next(name for name in sorted(tensor_files(source)) if cut.layer_of(name) == layer and _writes(cut, name))


def build(source: Path, cut: Cut, calibration: Calibration, *, ridge: float = 0.1) -> LinearMap:
    """Fit one map for each removed run on the calibration texts.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan at work.
        calibration: model and texts.
        ridge: strength of the pull towards no map, as a share of the MLP output's mean square.
    """
    record: dict = {"repair": "linear_map", "ridge": ridge, "tokens": calibration.tokens}
    scratch = Scratch(calibration.scratch, [record, cut.keep[LAYERS], cut.keep.get(HIDDEN)])
    runs = {mlp_output(start - 1, source, cut): (start, after) for start, after in removed_runs(cut)}
    pending = {name: run for name, run in runs.items() if name not in scratch}
    biases = {name for name in runs if f"{name.removesuffix('weight')}bias" in tensor_files(source)}
    features = 2 * len(cut.keep.get(HIDDEN) or range(cut.sizes[HIDDEN]))
    for names in groups_within(dict.fromkeys(pending, features), calibration.memory_bytes):
        for name, moments in _joint_moments({name: pending[name] for name in names}, cut, calibration):
            scratch.save(name, fit_map(moments, ridge, _gain(cut), name in biases))
    errors = [scratch.load(name, "errors").tolist() for name in runs]
    record["maps"] = [
        {"before": start, "after": after - 1, "error": dict(zip(("cut", "fitted"), pair, strict=True))}
        for (start, after), pair in zip(runs.values(), errors, strict=True)
    ]
    return LinearMap(cut, scratch, set(runs), record)


def _gain(cut: Cut) -> float:
    return getattr(cut.config, "residual_multiplier", 1.0)


def _joint_moments(
    runs: Mapping[str, tuple[int, int]], cut: Cut, calibration: Calibration
) -> list[tuple[str, Moments]]:
    """Return the moments of the MLP output and of the run's displacement behind each other, kept channels only."""
    kept = torch.tensor(cut.keep.get(HIDDEN) or range(cut.sizes[HIDDEN]))
    told: dict[str, Moments] = {}
    blocks, seen = decoder_blocks(calibration.model), {}
    sites = [calibration.output_of(name) for name in runs]
    sites += [Site("before", start, blocks[start - 1], "output") for start, _ in runs.values()]
    sites += [Site("after", after, blocks[after - 1], "output") for _, after in runs.values()]
    names = {after: name for name, (_, after) in runs.items()}

    def add(site: Site, rows: Tensor) -> None:
        rows = rows[:, kept.to(rows.device)]
        if site.axis != "after":
            seen[site.axis] = rows
            return
        name = names[site.layer]
        if name not in told:
            told[name] = Moments.empty(2 * len(kept), rows.device)
        told[name].add(torch.cat([seen[name].to(rows), rows - seen["before"].to(rows)], dim=1))

    calibration.watch(sites, add)
    return list(told.items())


def fit_map(moments: Moments, ridge: float, gain: float, biased: bool) -> dict[str, Tensor]:
    """Fit a run's map.

    Args:
        moments: of MLP outputs and displacements, `2 * hidden` features.
        ridge: strength of the pull towards no map.
        gain: how many times the stream holds the MLP's output.
        biased: the format has a bias.

    Returns:
        `map`, `(hidden, hidden)`, `shift`, `(hidden,)`, and `errors`: mean squared error of the plain cut and of the
        map, over the run's mean squared displacement.
    """
    products = moments.products(biased)
    hidden = len(products) // 2
    inner, cross, moved = products[:hidden, :hidden], products[hidden:, :hidden], products[hidden:, hidden:].trace()
    change = ridge_regression(inner, cross, ridge)
    gained = ((change @ inner) * change).sum() - 2 * (change * cross).sum()
    mean = moments.mean
    shift = mean[hidden:] - change @ mean[:hidden] if biased else torch.zeros_like(mean[hidden:])
    errors = torch.stack([moved, moved + gained]) / moments.products()[hidden:, hidden:].trace()
    told = {"map": torch.eye(hidden, device=change.device) + change / gain, "shift": shift / gain}
    return {key: tensor.float() for key, tensor in told.items()} | {"errors": errors}
