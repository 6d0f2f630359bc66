"""After a hidden cut, norms divide by the root mean square of fewer channels; their weights make up for it.

An RMSNorm over `d` channels of which `d'` stay divides what stays by `rms_d(x)`; the cut one by `rms_d'(x')`. Where
the channels that went carried nothing, `rms_d' = sqrt(d / d') rms_d`, so weights are multiplied by `sqrt(d / d')`.
Where they carried energy, the share that stayed says by how much less.
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, V
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.cut import Cut


ENERGIES = ("none", "measured")
SPANNED = {HIDDEN, HEADS, "num_key_value_heads"}


class NormRescale:
    """Multiplies the weights of norms over cut channels, and Gemma's embedding by the scale it lost.

    Args:
        cut: the plan at work.
        factors: what to multiply each norm's weight by, by its name; biases of LayerNorms stay.
        record: what the provenance says.
    """

    def __init__(self, cut: Cut, factors: dict[str, float], record: dict):
        self.cut, self.factors, self.record = cut, factors, record
        hidden = cut.sizes[HIDDEN] / len(cut.keep[HIDDEN]) if HIDDEN in cut.keep else 1.0
        # Gemma multiplies embeddings by sqrt(hidden_size), which shrinks with the cut.
        self.embedding = hidden**0.5 if cut.family.scales_embedding else 1.0

    def tensor(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:  # noqa: ARG002
        """Return a norm's weight rescaled, an embedding with its scale made up for, anything else as it is."""
        if name in self.factors:
            return self._norm(tensor, self._factor(name))
        if self.embedding != 1.0 and self._embeds(name):
            return (tensor.float() * self.embedding).to(tensor.dtype)
        return tensor

    def _factor(self, name: str) -> float:
        # A tied head grew with the embedding; the norm before it takes that back.
        before_tied_head = self.cut.layer_of(name) is None and self.cut.config.tie_word_embeddings
        return self.factors[name] / (self.embedding if before_tied_head else 1.0)

    def _norm(self, weight: Tensor, factor: float) -> Tensor:
        one = 1.0 if self.cut.family.norm_plus_one else 0.0
        return ((weight.double() + one) * factor - one).to(weight.dtype)

    def _embeds(self, name: str) -> bool:
        is_head = name.startswith("lm_head")
        return self.cut.family.dims(name) == (V, "H") and (not is_head or self.cut.config.tie_word_embeddings)


def spanning_norms(names: Iterable[str], cut: Cut) -> dict[str, str]:
    """Return the weights of the norms over channels that the plan cuts, each with its axis."""
    spans = {}
    for name in names:
        axes = cut.family.axis_dims(name)
        if name.endswith(".weight") and len(axes) == 1 and axes[0][0] in SPANNED & cut.keep.keys():
            spans[name] = axes[0][0]
    return {name: axis for name, axis in spans.items() if cut.name(name) is not None}


def check(source: Path, cut: Cut, *, energy: str) -> None:
    """Check that there are norms to rescale.

    Raises:
        InputError: another word for `energy`, no channels go that a norm spans, or the norms have no weights.
    """
    if energy not in ENERGIES:
        raise InputError(f"norm_rescale.energy is {energy!r}; allowed: {', '.join(ENERGIES)}")
    if not spanning_norms(tensor_files(source), cut):
        why = "its norms have no weights" if HIDDEN in cut.keep else "the plan cuts no channels that a norm spans"
        raise InputError(f"norm_rescale cannot repair this cut of {cut.config.model_type}: {why}")


def build(source: Path, cut: Cut, calibration: Calibration, *, energy: str = "none") -> NormRescale:
    """Return the repair.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan at work.
        calibration: texts, for measuring.
        energy: what the removed channels carried: `none` (weights grow by `sqrt(d / d')`), or `measured` on the texts,
            norm by norm.
    """
    spans = spanning_norms(tensor_files(source), cut)
    factors = {name: (cut.sizes[axis] / _kept(cut, axis)) ** 0.5 for name, axis in spans.items()}
    record: dict = {"repair": "norm_rescale", "energy": energy}
    if energy == "measured":
        shares = _kept_energy(cut, spans, calibration)
        factors = {name: factor * shares[name] ** 0.5 for name, factor in factors.items()}
        record["tokens"] = calibration.tokens
    return NormRescale(cut, factors, record)


def _kept(cut: Cut, axis: str) -> int:
    return len(cut.indices(axis, cut.keep["num_hidden_layers"][0]))


def _kept_energy(cut: Cut, spans: Iterable[str], calibration: Calibration) -> dict[str, float]:
    """Return the share of each norm's normalised energy that lies in the channels that stay."""
    energy = calibration.norm_energies(spans)
    return {name: float(cut.tensor(name, told).sum() / told.sum()) for name, told in energy.items()}
