"""The linear map in the place of any run of blocks, for a search that measures each choice as it would be repaired."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.checkpoints import tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
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


# Maps are held up to this size together; others are fitted again when they are asked for.
MAX_MAPS_BYTES = 4 * GIB
MIN_MAPS = 32


class RunMaps:
    """The maps of `repairs.linear_map`, in a model in memory instead of in a checkpoint, for any removed blocks.

    The dense model's states are read once and held on the CPU. Every map is fitted to them alone, while `linear_map`
    fits each of several to what the model with the maps below it computes; of a single run it is the same map.

    Args:
        source: the dense checkpoint's folder.
        cut: any plan applied to the dense model.
        calibration: model and texts.
        ridge: regularisation towards the plain cut, as in `linear_map`.
    """

    def __init__(self, source: Path, cut: Cut, calibration: Calibration, ridge: float):
        self._num_layers, self._ridge, self._gain = cut.sizes[LAYERS], ridge, stream_gain(cut)
        outputs = foldable_outputs(source, cut)
        self._modules = {layer: calibration.module(name) for layer, name in outputs.items()}
        self._biased = {layer for layer, name in outputs.items() if has_bias(name, source)}
        self._outputs, self._states = _read_states(calibration, outputs)
        self._device, hidden_size = calibration.model.device, self._states[0].shape[-1]
        self._kept = torch.arange(hidden_size)
        self._map = lru_cache(max(MIN_MAPS, MAX_MAPS_BYTES // (4 * hidden_size**2)))(self._fit)

    @contextmanager
    def in_place_of(self, removed: Iterable[int]) -> Iterator[None]:
        """Let the model compute with the maps in the place of removed blocks, which others leave out.

        A run whose maps cannot be folded into the block before it, or that has none before it, gets no map.
        """
        kept = sorted(set(range(self._num_layers)).difference(removed))
        with ExitStack() as stack:
            for run in runs_between(kept, self._num_layers):
                if run[0] - 1 in self._modules:
                    hook = mapping(*self._map(run), self._kept)
                    stack.callback(self._modules[run[0] - 1].register_forward_hook(hook).remove)
            yield

    def _fit(self, run: Run) -> tuple[Tensor, Tensor]:
        start, end = run
        output, before, after = (
            states.to(self._device).float()
            for states in (self._outputs[start - 1], self._states[start], self._states[end])
        )
        moments = Moments.empty(2 * output.shape[-1], output.device)
        moments.add(torch.cat([output, after - before], dim=1))
        fitted = fit_map(moments, self._ridge, self._gain, start - 1 in self._biased)
        return fitted["map"], fitted["shift"]


def foldable_outputs(source: Path, cut: Cut) -> dict[int, str]:
    """Return the names of the MLP output weights that a map can be folded into, by block, the last block left out."""
    names, outputs = sorted(tensor_files(source)), {}
    for layer in range(cut.sizes[LAYERS] - 1):
        try:
            check_foldable(layer, names, cut)
        except InputError:
            continue
        outputs[layer] = mlp_output(layer, source, cut)
    return outputs


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
    states = {place: torch.cat(parts) for place, parts in read.items()}
    return (
        {layer: tensor for (key, layer), tensor in states.items() if key == "output"},
        {layer: tensor for (key, layer), tensor in states.items() if key == STREAM},
    )
