"""Replace a removed run of blocks by one linear map, folded into the MLP before it (ReplaceMe, 2505.02819).

Let `M` be the MLP output of the block before the run, `x` the residual stream after that block and `y` the stream
after the run. The run moves the stream by `y - x`; regressed on `M`, `y - x = K M + c`. As `x` contains `r M` (`r` is
1 except for Granite's residual multiplier), `T = I + K / r` on the MLP's output turns `x` into `y` as far as a linear
map of `M` can:

    K = D^T M (M^T M + lambda I)^-1,   D = y - x,   lambda = ridge * mean(diag M^T M).

The regularisation is towards `K = 0`, the plain cut, so that on the calibration texts the map is never worse. `T` is
folded into `down_proj`; the checkpoint keeps its format, so `c` is used only if the format has a bias. A run of the
first blocks has no MLP before it and stays a plain cut.

Of several runs the lowest is fitted first, and each further one to what the model with the maps below it computes: `M`
and `x` are those of the repaired model and `y` is the dense model's, so that a map corrects what those below it left.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.importance.forward import Batch
from trl_prune.pruning.importance.hooks import Site, decoder_blocks
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.repairs.fit_cache import FitCache
from trl_prune.pruning.repairs.least_squares import input_axis, input_dim
from trl_prune.pruning.repairs.moments import Moments, ridge_regression
from trl_prune.pruning.surgery.cut import Cut


# Norms between the MLP's output and the residual stream.
AFTER_MLP = re.compile(r"\.post_(feedforward|mlp)_layernorm\.")
# A run of removed blocks, half open.
Run = tuple[int, int]


class LinearMap:
    """Folds the map of each removed run into the MLP output before it.

    Args:
        cut: the plan applied to the dense model.
        fits: the maps, by the names of the weights they are folded into.
        names: those weights.
        record: the repair's entry in the provenance.
    """

    def __init__(self, cut: Cut, fits: FitCache, names: set[str], record: dict):
        self.cut, self.fits, self.names, self.record = cut, fits, names, record

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return `T W`, or `T b + c / r`; any other tensor unchanged."""
        module, _, parameter = name.rpartition(".")
        weight = f"{module}.weight"
        if weight not in self.names or parameter not in ("weight", "bias"):
            return tensor
        matrix = self.fits.load(weight, "map")
        if parameter == "bias":
            return (matrix @ tensor.float() + self.fits.load(weight, "shift")).to(tensor.dtype)
        mapped = tensor.float() @ matrix.mT if input_dim(self.cut) == 0 else matrix @ tensor.float()
        return mapped.to(tensor.dtype)


def removed_runs(cut: Cut) -> list[Run]:
    """Return each removed run of blocks as a half-open range."""
    return runs_between(cut.keep[LAYERS], cut.sizes[LAYERS])


def runs_between(kept: Iterable[int], num_layers: int) -> list[Run]:
    """Return each run of blocks between kept ones, ascending, as a half-open range."""
    return [(before + 1, after) for before, after in pairwise([-1, *kept, num_layers]) if after > before + 1]


def mapped_runs(cut: Cut) -> list[Run]:
    """Return the removed runs that have a block before them."""
    return [(start, end) for start, end in removed_runs(cut) if start > 0]


def check(source: Path, cut: Cut, *, ridge: float) -> None:
    """Check that before the removed runs there are MLP outputs that maps can be folded into.

    Raises:
        InputError: `ridge` is not above 0, the plan removes no block or the first ones alone, or the block before a
            run has experts or a norm after its MLP.
    """
    if not ridge > 0:
        raise InputError(f"linear_map.ridge is {ridge}; wanted: a number above 0")
    if not removed_runs(cut):
        raise InputError("linear_map repairs cuts of num_hidden_layers; the plan keeps every block")
    runs = mapped_runs(cut)
    if not runs:
        raise InputError(
            "linear_map cannot repair a cut of the first blocks: there is no MLP before them to fold into"
        )
    names = sorted(tensor_files(source))
    for start, _ in runs:
        check_foldable(start - 1, names, cut)


def has_norm_after_mlp(names: Iterable[str], cut: Cut) -> bool:
    """Return whether there is a norm between an MLP's output and the residual stream, given the names of tensors."""
    return any(map(AFTER_MLP.search, names)) or not getattr(cut.config, "do_layer_norm_before", True)


def check_foldable(layer: int, names: Iterable[str], cut: Cut) -> None:
    """Check that a map can be folded into a block's MLP output, given the names of the checkpoint's tensors.

    Raises:
        InputError: the block has experts, or a norm after its MLP.
    """
    model_type = cut.config.model_type
    in_block = [name for name in names if cut.layer_of(name) == layer]
    if has_norm_after_mlp(in_block, cut):
        raise InputError(
            f"linear_map cannot repair {model_type}: it has a norm between the MLP output and the residual stream, "
            f"and a linear map cannot be folded through it"
        )
    outputs = [name for name in in_block if _is_mlp_output(cut, name)]
    if len(outputs) != 1 or any(is_of_mixture(cut, name) for name in in_block):
        raise InputError(
            f"linear_map cannot repair {model_type}: block {layer} has experts instead of a single MLP output"
        )


def is_of_mixture(cut: Cut, name: str) -> bool:
    """Return whether a tensor belongs to routed experts, beside which a shared expert is not all of the MLP."""
    return "expert" in name or any(EXPERTS in parts for parts in cut.family.dim_axes(name))


def _is_mlp_output(cut: Cut, name: str) -> bool:
    return name.endswith(".weight") and input_axis(cut, name) == NEURONS


def mlp_output(layer: int, source: Path, cut: Cut) -> str:
    """Return the name of a block's MLP output weight."""
    names = sorted(tensor_files(source))
    return next(name for name in names if cut.layer_of(name) == layer and _is_mlp_output(cut, name))


def num_inputs(cut: Cut) -> int:
    """Return how many inputs a map has."""
    return cut.sizes[HIDDEN]


def build(source: Path, cut: Cut, calibration: Calibration, *, ridge: float = 0.1) -> LinearMap:
    """Fit one map for each removed run on the calibration texts, from below.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: model and texts.
        ridge: regularisation towards the plain cut, as a share of the MLP output's mean square.
    """
    record: dict = {"repair": "linear_map", "ridge": ridge, "tokens": calibration.tokens}
    fits = FitCache(calibration.cache_dir, ["from below", record, cut.keep[LAYERS], cut.keep.get(HIDDEN)])
    runs = {mlp_output(start - 1, source, cut): (start, end) for start, end in mapped_runs(cut)}
    biased = {name for name in runs if has_bias(name, source)}
    fitted: dict[str, Run] = {}
    for name, run in runs.items():
        if name not in fits:
            below = LinearMap(cut, fits, set(fitted), {})
            moments = _joint_moments(name, run, fitted, below, calibration)
            fits.save(name, fit_map(moments, ridge, stream_gain(cut), name in biased))
        fitted[name] = run
    errors = [fits.load(name, "errors").tolist() for name in runs]
    record["maps"] = [
        {"before": start, "after": end - 1, "error": dict(zip(("cut", "fitted"), pair, strict=True))}
        for (start, end), pair in zip(runs.values(), errors, strict=True)
    ]
    return LinearMap(cut, fits, set(runs), record)


def has_bias(name: str, source: Path) -> bool:
    """Return whether a weight, given by its name, has a bias beside it."""
    return f"{name.removesuffix('weight')}bias" in tensor_files(source)


def stream_gain(cut: Cut) -> float:
    """Return the factor of the MLP's output in the residual stream."""
    return getattr(cut.config, "residual_multiplier", 1.0)


def _joint_moments(
    name: str, run: Run, fitted: Mapping[str, Run], below: LinearMap, calibration: Calibration
) -> Moments:
    """Return the moments of an MLP's outputs concatenated with the displacement by a run, kept channels only.

    Args:
        name: the MLP output weight before the run.
        run: the removed run.
        fitted: the runs below it, by the weights that their maps are folded into.
        below: their maps.
        calibration: model and texts.
    """
    (start, end), cut, blocks = run, below.cut, decoder_blocks(calibration.model)
    kept = torch.tensor(cut.keep.get(HIDDEN) or range(cut.sizes[HIDDEN]))
    sites = [calibration.output_site(name), Site("before", start, blocks[start - 1], "output")]
    after = Site("after", end, blocks[end - 1], "output")
    moments = Moments.empty(2 * len(kept), calibration.model.device)
    # What comes after the run is not read.
    with layers_skipped(calibration.model, range(end, cut.sizes[LAYERS])):
        for batch in calibration.progress(calibration.batches):
            states = _states(calibration, [*sites, after], batch, kept)
            if fitted:
                with _repaired(calibration, fitted, below, kept):
                    states |= _states(calibration, sites, batch, kept)
            for output, before, wanted in zip(states[name], states["before"], states["after"], strict=True):
                displacement = wanted.to(output) - before.to(output)
                moments.add(torch.cat([output, displacement], dim=1).to(moments.gram.device))
    return moments


def _states(calibration: Calibration, sites: list[Site], batch: Batch, kept: Tensor) -> dict[str, list[Tensor]]:
    """Return the kept channels at some sites, by their keys, for each slice of a batch's rows."""
    states: dict[str, list[Tensor]] = {site.key: [] for site in sites}

    def add(site: Site, activations: Tensor) -> None:
        states[site.key].append(activations[:, kept.to(activations.device)])

    calibration.read_activations(sites, add, [batch])
    return states


@contextmanager
def _repaired(calibration: Calibration, fitted: Mapping[str, Run], below: LinearMap, kept: Tensor) -> Iterator[None]:
    """Let the dense model run without some runs of blocks and with their maps."""
    removed = [layer for start, end in fitted.values() for layer in range(start, end)]
    with ExitStack() as stack:
        stack.enter_context(layers_skipped(calibration.model, removed))
        for name in fitted:
            hook = mapping(below.fits.load(name, "map"), below.fits.load(name, "shift"), kept)
            stack.callback(calibration.module(name).register_forward_hook(hook).remove)
        yield


def mapping(matrix: Tensor, shift: Tensor, kept: Tensor) -> Callable[..., Tensor]:
    """Return a forward hook that maps the kept channels of a module's output."""

    def hook(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
        channels = kept.to(output.device)
        return output.index_copy(-1, channels, output[..., channels] @ matrix.to(output).mT + shift.to(output))

    return hook


def fit_map(moments: Moments, ridge: float, gain: float, biased: bool) -> dict[str, Tensor]:
    """Fit a run's map.

    Args:
        moments: of MLP outputs concatenated with displacements, `2 * hidden_size` features.
        ridge: regularisation towards the plain cut.
        gain: the factor of the MLP's output in the residual stream.
        biased: the format has a bias.

    Returns:
        `map`, `(hidden_size, hidden_size)`, `shift`, `(hidden_size,)`, and `errors`: mean squared error of the plain
        cut and of the map, over the run's mean squared displacement.
    """
    products = moments.products(biased)
    hidden_size = len(products) // 2
    inner, cross = products[:hidden_size, :hidden_size], products[hidden_size:, :hidden_size]
    cut_error = products[hidden_size:, hidden_size:].trace()
    change = ridge_regression(inner, cross, ridge)
    error_change = ((change @ inner) * change).sum() - 2 * (change * cross).sum()
    mean = moments.mean
    shift = mean[hidden_size:] - change @ mean[:hidden_size] if biased else torch.zeros_like(mean[hidden_size:])
    displacement = moments.products()[hidden_size:, hidden_size:].trace()
    errors = torch.stack([cut_error, cut_error + error_change]) / displacement
    matrix = torch.eye(hidden_size, device=change.device) + change / gain
    return {"map": matrix.float(), "shift": (shift / gain).float(), "errors": errors}
