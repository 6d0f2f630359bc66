"""Rescale norm weights after a hidden cut, because the norms divide by the root mean square of fewer channels.

An RMSNorm over `d` channels, `d'` of them kept, divides them by `rms_d(x)` in the dense model and by `rms_d'(x')`
after the cut. If the removed channels were zero, `rms_d' = sqrt(d / d') rms_d`, so weights are multiplied by
`sqrt(d / d')`. If they carried energy, the factor is multiplied by the square root of the kept share of energy.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, H, V
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.cut import Cut


ENERGIES = ("none", "measured")
# The axes that norms run over.
NORM_AXES = {HIDDEN, HEADS, KV_HEADS}


class NormRescale:
    """Multiplies the weights of norms over cut channels, and Gemma's embedding to restore its scale.

    Args:
        cut: the plan applied to the dense model.
        factors: the factor of each norm's weight, by its name; biases of LayerNorms are unchanged.
        record: the repair's entry in the provenance.
    """

    def __init__(self, cut: Cut, factors: dict[str, float], record: dict):
        self.cut, self.factors, self.record = cut, factors, record
        hidden_ratio = cut.sizes[HIDDEN] / len(cut.keep[HIDDEN]) if HIDDEN in cut.keep else 1.0
        # Gemma multiplies embeddings by sqrt(hidden_size), which the cut makes smaller.
        self.embedding_factor = hidden_ratio**0.5 if cut.family.scales_embedding else 1.0

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return a norm's weight or a scaled embedding multiplied by its factor, any other tensor unchanged."""
        if name in self.factors:
            return self._rescaled_norm(tensor, self._norm_factor(name))
        if self.embedding_factor != 1.0 and self._is_embedding(name):
            return (tensor.float() * self.embedding_factor).to(tensor.dtype)
        return tensor

    def _norm_factor(self, name: str) -> float:
        # A tied LM head is multiplied with the embedding; the norm before it compensates.
        before_tied_head = self.cut.layer_of(name) is None and self.cut.config.tie_word_embeddings
        return self.factors[name] / (self.embedding_factor if before_tied_head else 1.0)

    def _rescaled_norm(self, weight: Tensor, factor: float) -> Tensor:
        offset = 1.0 if self.cut.family.norm_plus_one else 0.0
        return ((weight.double() + offset) * factor - offset).to(weight.dtype)

    def _is_embedding(self, name: str) -> bool:
        is_head = name.startswith("lm_head")
        return self.cut.family.dims(name) == (V, H) and (not is_head or self.cut.config.tie_word_embeddings)


def norms_over_cut_axes(names: Iterable[str], cut: Cut) -> dict[str, str]:
    """Return the weights of the kept norms over axes that the plan cuts, each with its axis."""
    axis_of = {}
    for name in names:
        axes = cut.family.dim_axes(name)
        if name.endswith(".weight") and len(axes) == 1 and axes[0][0] in NORM_AXES & cut.keep.keys():
            axis_of[name] = axes[0][0]
    return {name: axis for name, axis in axis_of.items() if cut.new_name(name) is not None}


def check(source: Path, cut: Cut, *, energy: str) -> None:
    """Check that there are norms to rescale.

    Raises:
        InputError: an unknown `energy`, a plan that cuts no axis that a norm runs over, or norms without weights.
    """
    if energy not in ENERGIES:
        raise InputError(f"norm_rescale.energy is {energy!r}; allowed: {', '.join(ENERGIES)}")
    if not norms_over_cut_axes(tensor_files(source), cut):
        reason = "its norms have no weights" if HIDDEN in cut.keep else "the plan cuts no channels that a norm spans"
        raise InputError(f"norm_rescale cannot repair this cut of {cut.config.model_type}: {reason}")


def reads_texts(options: Mapping[str, object]) -> bool:
    """Return whether energies are measured on texts."""
    return options.get("energy") == "measured"


def build(source: Path, cut: Cut, calibration: Calibration, *, energy: str = "none") -> NormRescale:
    """Return the repair.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: texts, for `measured`.
        energy: the energy of the removed channels: `none` (weights are multiplied by `sqrt(d / d')`), or `measured`
            on the texts, for each norm.
    """
    axis_of = norms_over_cut_axes(tensor_files(source), cut)
    factors = {name: (cut.sizes[axis] / _kept_size(cut, axis)) ** 0.5 for name, axis in axis_of.items()}
    record: dict = {"repair": "norm_rescale", "energy": energy}
    if energy == "measured":
        shares = _kept_energy(cut, axis_of, calibration)
        factors = {name: factor * shares[name] ** 0.5 for name, factor in factors.items()}
        record["tokens"] = calibration.tokens
    return NormRescale(cut, factors, record)


def _kept_size(cut: Cut, axis: str) -> int:
    return len(cut.kept_units(axis, cut.keep[LAYERS][0]))


def _kept_energy(cut: Cut, norms: Iterable[str], calibration: Calibration) -> dict[str, float]:
    """Return the kept channels' share of the energy of each norm's input."""
    energies = calibration.norm_energies(norms)
    return {name: float(cut.cut_tensor(name, energy).sum() / energy.sum()) for name, energy in energies.items()}
