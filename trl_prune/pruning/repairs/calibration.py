"""The dense model and calibration texts that repairs are fitted on, and their activations in one or a few passes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.importance.forward import Batch, observe
from trl_prune.pruning.importance.hooks import Site, activation_hooks
from trl_prune.pruning.repairs.moments import Moments


GIB = 2**30


class ActivationReader:
    """Passes on the activations of some sites at unpadded positions, as a `forward.Observer`.

    Args:
        sites: where to read.
        callback: called with a site and its activations, `(positions, channels)`, in the order the model runs.
    """

    def __init__(self, sites: Sequence[Site], callback: Callable[[Site, Tensor], None]):
        self.sites, self.callback = sites, callback

    def attach(self, model: PreTrainedModel) -> AbstractContextManager:  # noqa: ARG002
        """Return a context in which the sites are read."""
        return activation_hooks(self.sites, self._read)

    def before_forward(self, attention_mask: Tensor) -> None:
        """Store which positions are tokens."""
        self._is_token = attention_mask.flatten().bool()

    def after_forward(self) -> None:
        """Do nothing: activations are passed on in the hooks."""

    def _read(self, site: Site, activation: Tensor) -> None:
        self.callback(site, activation.flatten(0, -2)[self._is_token.to(activation.device)])


@dataclass
class Calibration:
    """The dense model and the texts that repairs are fitted on.

    Attributes:
        load: returns the dense model, in eval mode; called once, and only if a repair needs it.
        batches: dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`.
        cache_dir: folder for the fits, from which an interrupted pass resumes; use one per model and set of batches.
        head_scores: importance of every query head, `(layers, heads)`, for merging heads.
        memory_bytes: limit on the sums held at once; if they need more, the texts are passed several times.
        progress: wraps the batches of each pass, to show progress.
    """

    load: Callable[[], PreTrainedModel]
    batches: Sequence[Batch]
    cache_dir: Path
    head_scores: Tensor | None = None
    memory_bytes: int = 4 * GIB
    progress: Callable[[Iterable[Batch]], Iterable[Batch]] = iter

    @cached_property
    def model(self) -> PreTrainedModel:
        """The dense model."""
        return self.load()

    @property
    def tokens(self) -> int:
        """Number of unpadded positions in the batches."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    def module(self, name: str) -> nn.Module:
        """Return the module that a tensor of the checkpoint belongs to, by the tensor's name."""
        name = name.rpartition(".")[0]
        # Some checkpoints were saved from the bare backbone, without its name as a prefix.
        bare = not hasattr(self.model, name.partition(".")[0])
        return self.model.get_submodule(f"{self.model.base_model_prefix}.{name}" if bare else name)

    def read_activations(
        self, sites: Sequence[Site], callback: Callable[[Site, Tensor], None], batches: Iterable[Batch] | None = None
    ) -> None:
        """Run the texts once, or some batches of them, and call `callback(site, activations)` for each site."""
        batches = self.progress(self.batches) if batches is None else batches
        observe(self.model, batches, [ActivationReader(sites, callback)])

    def input_moments(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, Moments]]:
        """Yield the moments of the inputs of linear maps, in groups within the memory limit.

        Args:
            sizes: the length of each map's input, by its weight's name.
        """
        for names in groups_within(sizes, self.memory_bytes):
            moments: dict[str, Moments] = {}

            def add(site: Site, activations: Tensor, moments: dict[str, Moments] = moments) -> None:
                if site.key not in moments:
                    moments[site.key] = Moments.empty(activations.shape[-1], activations.device)
                moments[site.key].add(activations)

            self.read_activations([self.input_site(name) for name in names], add)
            while moments:
                yield moments.popitem()

    def norm_energies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return each channel's energy in norm inputs scaled to unit length, summed over positions, `(channels,)`.

        Args:
            names: the norms' weights. A LayerNorm subtracts the mean first.
        """
        energies: dict[str, Tensor] = {}

        def add(site: Site, states: Tensor) -> None:
            states = states.float()
            if "RMS" not in type(site.module).__name__:
                states = states - states.mean(dim=-1, keepdim=True)
            squares = nn.functional.normalize(states, dim=-1).square().sum(dim=0, dtype=torch.float64)
            energies[site.key] = energies.get(site.key, 0) + squares.cpu()

        self.read_activations([self.input_site(name) for name in names], add)
        return energies

    def input_site(self, name: str) -> Site:
        """Return the input of a tensor's module as a site, with the tensor's name as its key."""
        return Site(name, 0, self.module(name), "input")

    def output_site(self, name: str) -> Site:
        """Return the output of a tensor's module as a site, with the tensor's name as its key."""
        return Site(name, 0, self.module(name), "output")


def groups_within(sizes: Mapping[str, int], memory_bytes: int) -> list[list[str]]:
    """Return names in groups whose second moments, float64, fit the memory together; at least one name per group.

    Args:
        sizes: number of features of each name.
        memory_bytes: limit on the moments of a group.
    """
    groups: list[list[str]] = []
    free_bytes = 0
    for name, features in sizes.items():
        needed = 8 * features * (features + 1)
        if not groups or needed > free_bytes:
            groups.append([])
            free_bytes = memory_bytes
        groups[-1].append(name)
        free_bytes -= needed
    return groups
