"""The linear map in the place of any run of blocks, for a search that measures each choice as it would be repaired."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.forward import input_device
from trl_prune.pruning.importance.hooks import STREAM, Site, stream_sites
from trl_prune.pruning.repairs.calibration import GIB, Calibration
from trl_prune.pruning.repairs.linear_map import (
    Run,
    check_foldable,
    fit_map,
    has_bias,
    mapping,
    mlp_output,
    runs_between,
    stream_gain,
)
from trl_prune.pruning.repairs.moments import Moments
from trl_prune.pruning.surgery.cut import Cut


# Maps are held on the CPU up to this size together, and at least two for each block, which a step of a search asks for
# again and again.
MAX_MAPS_BYTES = 4 * GIB
# Positions whose products are summed at once.
CHUNK = 2**12


class RunMaps:
    """The maps of `repairs.linear_map`, in a model in memory instead of in a checkpoint, for any removed blocks.

    The dense model's states are read once and held on the CPU. Every map is fitted to them alone, while `linear_map`
    fits each of several to what the model with the maps below it computes; of a single run it is the same map.

    Args:
        source: the dense checkpoint's folder.
        cut: any plan applied to the dense model.
        calibration: model and texts.
        ridge: regularisation towards the plain cut, as in `linear_map`.

    Raises:
        InputError: there is a block whose MLP output a map cannot be folded into.
    """

    def __init__(self, source: Path, cut: Cut, calibration: Calibration, ridge: float):
        check_every_block(source, cut)
        self._num_layers = cut.sizes[LAYERS]
        names = {layer: mlp_output(layer, source, cut) for layer in range(self._num_layers - 1)}
        self._modules = {layer: calibration.module(name) for layer, name in names.items()}
        states = _read_states(calibration, names)
        biased = frozenset(layer for layer, name in names.items() if has_bias(name, source))
        fits = MapFits(*states, biased, ridge, stream_gain(cut), input_device(calibration.model))
        hidden_size = fits.stream[0].shape[-1]
        self._channels = torch.arange(hidden_size)
        self._map = lru_cache(max(2 * self._num_layers, MAX_MAPS_BYTES // (4 * hidden_size**2)))(fits.fit)

    @contextmanager
    def in_place_of(self, removed: Iterable[int]) -> Iterator[None]:
        """Let the model compute with the maps in the place of removed blocks, which the caller skips.

        A run of the first blocks gets none, as in `linear_map`.
        """
        kept = sorted(set(range(self._num_layers)).difference(removed))
        with ExitStack() as stack:
            for start, end in runs_between(kept, self._num_layers):
                if start > 0:
                    hook = mapping(*self._map((start, end)), self._channels)
                    stack.callback(self._modules[start - 1].register_forward_hook(hook).remove)
            yield


@dataclass(frozen=True)
class MapFits:
    """Fits the map of any run.

    Attributes:
        outputs: the dense model's MLP outputs by block, `(tokens, hidden_size)`, on the CPU.
        stream: the residual stream before each block and after the last, of the same shape.
        biased: the blocks whose MLP output has a bias.
        ridge: regularisation towards the plain cut.
        gain: the factor of the MLP's output in the residual stream.
        device: where maps are fitted.
    """

    outputs: dict[int, Tensor]
    stream: dict[int, Tensor]
    biased: frozenset[int]
    ridge: float
    gain: float
    device: torch.device

    def fit(self, run: Run) -> tuple[Tensor, Tensor]:
        """Return a run's matrix, `(hidden_size, hidden_size)`, and shift, on the CPU."""
        start, end = run
        places = (self.outputs[start - 1], self.stream[start], self.stream[end])
        moments = Moments.empty(2 * self.stream[0].shape[-1], self.device)
        for output, before, after in zip(*(states.split(CHUNK) for states in places), strict=True):
            moved = [states.to(self.device).float() for states in (output, before, after)]
            moments.add(torch.cat([moved[0], moved[2] - moved[1]], dim=1))
        fitted = fit_map(moments, self.ridge, self.gain, start - 1 in self.biased)
        return fitted["map"].cpu(), fitted["shift"].cpu()


def check_every_block(source: Path, cut: Cut) -> None:
    """Check that a map can be folded into every block but the last, so that any run but the first blocks gets one.

    Raises:
        InputError: a block has experts, or a norm after its MLP.
    """
    names = sorted(tensor_files(source))
    for layer in range(cut.sizes[LAYERS] - 1):
        check_foldable(layer, names, cut)


def states_bytes(num_tokens: int, num_layers: int, hidden_size: int, itemsize: int) -> int:
    """Return the bytes of the states that maps are fitted to: of each block, the MLP's output and the stream."""
    return 2 * num_layers * num_tokens * hidden_size * itemsize


@torch.inference_mode()
def _read_states(calibration: Calibration, outputs: dict[int, str]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return the MLP outputs by block, and the stream before each block and after the last, `(tokens, channels)`."""
    read: dict[tuple[str, int], list[Tensor]] = {}

    def add(site: Site, activations: Tensor) -> None:
        read.setdefault((site.key, site.layer), []).append(activations.to("cpu", copy=True))

    mlps = [Site("output", layer, calibration.module(name), "output") for layer, name in outputs.items()]
    calibration.read_activations([*mlps, *stream_sites(calibration.model)], add)
    # One after the other, so that parts and wholes are not all held together.
    states = {place: torch.cat(read.pop(place)) for place in list(read)}
    by_key = {
        key: {layer: tensor for (of, layer), tensor in states.items() if of == key} for key in ("output", STREAM)
    }
    return by_key["output"], by_key[STREAM]
