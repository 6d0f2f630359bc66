"""Rescale the blocks after a removed run by the magnitude that the run gave the residual stream.

The stream grows from block to block, so that a cut hands the next one a stream that is too short for what that block
adds. Prune&Comp (2507.18212) estimates this gap and removes it by rescaling remaining weights offline. Here the factor
is the ratio of the stream's mean L2 norm after the run to that before it, and what later blocks add is divided by it:
that is as if the stream had been multiplied, because the norms that read it divide by its length, and the embedding,
which may be tied to the LM head, stays as it is.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from operator import mul
from pathlib import Path

from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HIDDEN, LAYERS
from trl_prune.pruning.importance.hooks import STREAM, Site, stream_sites
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.repairs.linear_map import has_norm_after_mlp, is_of_mixture, removed_runs
from trl_prune.pruning.surgery.cut import Cut


class Magnitude:
    """Divides what blocks add to the residual stream.

    Args:
        cut: the plan applied to the dense model.
        divisors: by kept block, counted in the dense model.
        record: the repair's entry in the provenance.
    """

    def __init__(self, cut: Cut, divisors: Mapping[int, float], record: dict):
        self.cut, self.divisors, self.record = cut, divisors, record

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return what writes to the stream divided, any other tensor unchanged."""
        divisor = self.divisors.get(self.cut.layer_of(name), 1.0)
        if divisor == 1.0 or not writes_stream(self.cut, name):
            return tensor
        return (tensor.double() / divisor).to(tensor.dtype)


def writes_stream(cut: Cut, name: str) -> bool:
    """Return whether a tensor of a block is the weight or the bias of a linear map into the residual stream."""
    module, _, parameter = name.rpartition(".")
    axes = cut.family.dim_axes(f"{module}.weight")
    if parameter not in ("weight", "bias") or len(axes) != 2:
        return False
    inputs, outputs = axes if cut.family.transposed else axes[::-1]
    return outputs == (HIDDEN,) != inputs


def check(source: Path, cut: Cut) -> None:
    """Check that blocks follow a removed run, and that what they add can be divided.

    Raises:
        InputError: no kept block follows a removed run, or the model type is none whose stream only norms read.
    """
    runs, kept, model_type = removed_runs(cut), cut.keep[LAYERS], cut.config.model_type
    if not runs or kept[-1] < runs[0][0]:
        raise InputError("magnitude repairs cuts of num_hidden_layers with kept blocks behind a removed one")
    if model_type not in FAMILIES:
        raise InputError(f"magnitude cannot repair {model_type}: it is for types whose rows are written by hand")
    names = [name for name in tensor_files(source) if cut.layer_of(name) is not None]
    if has_norm_after_mlp(names, cut):
        raise InputError(f"magnitude cannot repair {model_type}: norms decide what its blocks add to the stream")
    if any(is_of_mixture(cut, name) for name in names):
        raise InputError(f"magnitude cannot repair {model_type}: its blocks have experts")


def build(source: Path, cut: Cut, calibration: Calibration) -> Magnitude:  # noqa: ARG001
    """Measure the magnitudes around each removed run on the calibration texts.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: model and texts.
    """
    norms = _norms(cut, calibration)
    ratios = {(start, end): norms[end] / norms[start] for start, end in removed_runs(cut)}
    products = dict(zip((end for _, end in ratios), accumulate(ratios.values(), mul), strict=True))
    divisors = {
        layer: next((product for end, product in reversed(products.items()) if end <= layer), 1.0)
        for layer in cut.keep[LAYERS]
    }
    gaps = [{"before": start, "after": end - 1, "ratio": ratio} for (start, end), ratio in ratios.items()]
    return Magnitude(cut, divisors, {"repair": "magnitude", "tokens": calibration.tokens, "gaps": gaps})


def _norms(cut: Cut, calibration: Calibration) -> dict[int, float]:
    """Return the sums of the stream's L2 norms, kept channels only, before the blocks around the removed runs."""
    layers = {layer for run in removed_runs(cut) for layer in run}
    sums: Counter[int] = Counter()

    def add(site: Site, states: Tensor) -> None:
        channels = states if HIDDEN not in cut.keep else states[:, cut.keep[HIDDEN]]
        sums[site.layer] += channels.float().norm(dim=-1).double().sum().item()

    sites = [site for site in stream_sites(calibration.model) if site.key == STREAM and site.layer in layers]
    calibration.read_activations(sites, add)
    return dict(sums)
