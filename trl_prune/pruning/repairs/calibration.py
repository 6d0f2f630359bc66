"""What repairs learn from: the dense model at work on calibration texts, watched in one or a few passes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.pruning.importance.observation import Batch, Site, observe, watched
from trl_prune.pruning.repairs.moments import Moments


GIB = 2**30


@dataclass(frozen=True)
class ActivationReader:
    """Hands on what passes some sites at positions that are no padding, as an `observation.Observer`.

    Attributes:
        sites: where to look.
        see: called with a site and what passed it, `(positions, channels)`, in the order in which the model runs.
    """

    sites: Sequence[Site]
    see: Callable[[Site, Tensor], None]
    places: list[Tensor] = field(default_factory=list)

    def attached(self, model: PreTrainedModel) -> AbstractContextManager:  # noqa: ARG002
        """Return a context in which the sites are read."""
        return watched(self.sites, lambda site, states: self.see(site, self._rows(states)))

    def _rows(self, states: Tensor) -> Tensor:
        return states.flatten(0, -2)[self.places[0].to(states.device)]

    def before(self, mask: Tensor) -> None:
        """Learn which positions are tokens."""
        self.places[:] = [mask.flatten().bool()]

    def after(self) -> None:
        """Add nothing: activations are handed on as they pass."""


@dataclass
class Calibration:
    """The dense model and the texts that repairs are fitted on.

    Attributes:
        load: returns the dense model, in eval mode; called once, and only where a repair needs it.
        batches: dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`.
        scratch: a folder for what was fitted, so that a broken pass goes on; of one model and one set of batches.
        head_scores: importance of every query head, `(layers, heads)`, for merging heads.
        memory_bytes: the sums held at once; where they do not fit, the texts are passed several times.
        progress: wraps the batches of each pass, to show how far it is.
    """

    load: Callable[[], PreTrainedModel]
    batches: Sequence[Batch]
    scratch: Path
    head_scores: Tensor | None = None
    memory_bytes: int = 4 * GIB
    progress: Callable[[Iterable[Batch]], Iterable[Batch]] = iter

    @cached_property
    def model(self) -> PreTrainedModel:
        """The dense model."""
        return self.load()

    @property
    def tokens(self) -> int:
        """How many positions the batches have that are no padding."""
        return sum(int(batch["attention_mask"].sum()) for batch in self.batches)

    def module(self, name: str) -> nn.Module:
        """Return the module that a tensor's name in a checkpoint belongs to."""
        name = name.rpartition(".")[0]
        # Some checkpoints were saved from the bare backbone and lack its name in front.
        bare = not hasattr(self.model, name.partition(".")[0])
        return self.model.get_submodule(f"{self.model.base_model_prefix}.{name}" if bare else name)

    def watch(self, sites: Sequence[Site], see: Callable[[Site, Tensor], None]) -> None:
        """Run the texts once, handing on what passes the sites."""
        observe(self.model, self.progress(self.batches), [ActivationReader(sites, see)])

    def input_moments(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, Moments]]:
        """Yield the moments of the inputs of linear maps, group by group within the memory budget.

        Args:
            sizes: the length of each map's input, by its weight's name.
        """
        for names in groups_within(sizes, self.memory_bytes):
            seen: dict[str, Moments] = {}

            def add(site: Site, rows: Tensor, seen: dict[str, Moments] = seen) -> None:
                if site.axis not in seen:
                    seen[site.axis] = Moments.empty(rows.shape[-1], rows.device)
                seen[site.axis].add(rows)

            self.watch([self.input_of(name) for name in names], add)
            while seen:
                yield seen.popitem()

    def norm_energies(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return what each channel carries of a norm's input, summed over positions of unit length, `(channels,)`.

        Args:
            names: the norms' weights. A LayerNorm subtracts the mean first.
        """
        energies: dict[str, Tensor] = {}

        def add(site: Site, states: Tensor) -> None:
            states = states.float()
            if "RMS" not in type(site.module).__name__:
                states = states - states.mean(dim=-1, keepdim=True)
            squares = nn.functional.normalize(states, dim=-1).square().sum(dim=0, dtype=torch.float64)
            energies[site.axis] = energies.get(site.axis, 0) + squares.cpu()

        self.watch([self.input_of(name) for name in names], add)
        return energies

    def input_of(self, name: str) -> Site:
        """Return the site of what enters the module of a tensor, under the tensor's name."""
        return Site(name, 0, self.module(name), "input")

    def output_of(self, name: str) -> Site:
        """Return the site of what leaves the module of a tensor, under the tensor's name."""
        return Site(name, 0, self.module(name), "output")


def groups_within(sizes: Mapping[str, int], memory_bytes: int) -> list[list[str]]:
    """Return names in groups whose sums of products, float64, fit the memory together; one at least in each.

    Args:
        sizes: how many features each name has.
        memory_bytes: what a group's sums may take.
    """
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        needed = 8 * size * (size + 1)
        if not groups or needed > room:
            groups.append([])
            room = memory_bytes
        groups[-1].append(name)
        room -= needed
    return groups
