"""Importance of all axes from one forward-only pass, kept as sums that serve any target size and aggregation."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import atomic_file
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.importance.channels import ChannelObserver, ChannelSums, aggregate
from trl_prune.pruning.importance.experts import SQUARES, ExpertObserver, expert_importance
from trl_prune.pruning.importance.forward import Batch, Observer, counted_positions, observe
from trl_prune.pruning.importance.hooks import STREAM, stream_sites, unit_sites
from trl_prune.pruning.importance.layers import LayerObserver, LayerScores
from trl_prune.pruning.keep import axis_sizes, row_for


@dataclass
class Scores:
    """Running sums from which the importance of every unit of a model is computed.

    Attributes:
        layers: distances between the residual stream before and after every run of blocks.
        sizes: the model's number of units along each axis.
        channels: by axis (and STREAM) `(sites, 3, 2, channels)`, float64: see ChannelObserver.
        experts: for each block `(4, experts)`, float64, or None if it has no experts: see ExpertObserver.
        num_texts: number of texts in the sums.
        site_layers: for heads and neurons, the block of each site; blocks of other kinds have none.
        metadata: what the caller stores with the scores (fingerprint of the calibration rows, seed).
    """

    layers: LayerScores
    sizes: dict[str, int]
    channels: ChannelSums = field(default_factory=dict)
    experts: list[Tensor | None] = field(default_factory=list)
    num_texts: int = 0
    site_layers: dict[str, list[int]] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)

    @property
    def num_batches(self) -> int:
        """Number of batches in the sums, for resuming."""
        return self.layers.num_batches

    def heads(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, heads)`: the L2 norm of the aggregated channels of each head's output; 0 without heads."""
        return self._norms(HEADS, self.sizes[HEADS], batch, sequence)

    def kv_heads(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, kv_heads)`: the L2 norm over the query heads that share a KV head.

        No paper scores KV heads. A KV head is removed with all its query heads, so its score is theirs combined.
        """
        return self._norms(HEADS, self.sizes[KV_HEADS], batch, sequence)

    def _norms(self, axis: str, num_units: int, batch: str, sequence: str) -> Tensor:
        channels = self._aggregated(axis, batch, sequence)
        return self._by_layer(axis, torch.linalg.vector_norm(channels.unflatten(-1, (num_units, -1)), dim=-1))

    def neurons(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, neurons)`: the aggregated inputs of the MLP output projection; 0 without an MLP."""
        return self._by_layer(NEURONS, self._aggregated(NEURONS, batch, sequence))

    def _by_layer(self, axis: str, importance: Tensor) -> Tensor:
        """Return the importance of units by block, `(layers, units)`, given that by site."""
        layers = torch.tensor(self.site_layers.get(axis, range(len(importance))))
        return importance.new_zeros(self.sizes[LAYERS], importance.shape[-1]).index_add_(0, layers, importance)

    def hidden(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(channels,)`: the aggregated outputs of the norms inside blocks, summed over the norms."""
        return self._aggregated(HIDDEN, batch, sequence).sum(dim=0)

    def energy(self) -> Tensor:
        """Return `(channels,)`: the energy (sum of squares) of each residual channel over all blocks' inputs."""
        return self._aggregated(STREAM, "l2", "l2").square().sum(dim=0)

    def _aggregated(self, axis: str, batch: str, sequence: str) -> Tensor:
        if axis not in self.channels:
            raise InputError(f"the scores have no {axis}; they have {', '.join(self.channels)}")
        return aggregate(self.channels[axis].cpu(), self.num_texts, batch, sequence)

    def expert_importance(self, by: str = "norm") -> Tensor:
        """Return `(layers, experts)`: the importance of experts by `norm`, `reap`, `frequency` or `output`.

        It is 0 for experts that no token was routed to and for blocks without experts.

        Raises:
            InputError: no expert was observed, or the sums are of an earlier version.
        """
        if all(sums is None for sums in self.experts):
            raise InputError("the scores have no experts: the model's class does not show which tokens they get")
        sums = self._stacked_experts()
        if sums.shape[1] <= SQUARES:
            raise InputError("the scores are of an earlier version, without what experts are chosen by; score again")
        return expert_importance(sums, by)

    def _stacked_experts(self) -> Tensor:
        scored = next(sums for sums in self.experts if sums is not None)
        none = torch.zeros(scored.shape, dtype=torch.float64)
        return torch.stack([none if sums is None else sums.cpu() for sums in self.experts])

    def save(self, path: Path) -> None:
        """Write the sums as safetensors, atomically; `LayerScores.load` reads the distances from the same file."""
        tensors = {"angle": self.layers.angle, "cosine": self.layers.cosine}
        # Counts as a tensor, metadata as one JSON string: safetensors writes the entries of its metadata in varying
        # order, and equal scores must be equal files.
        tensors["counts"] = torch.tensor([self.layers.num_positions, self.layers.num_batches])
        tensors |= {f"channels.{axis}": sums.cpu() for axis, sums in self.channels.items()}
        if any(sums is not None for sums in self.experts):
            tensors["experts"] = self._stacked_experts()
        header = {
            "sizes": self.sizes, "texts": self.num_texts, "site_layers": self.site_layers, "facts": self.metadata,
        }  # fmt: skip
        with atomic_file(path) as part:
            save_file(tensors, part, {"scores": json.dumps(header, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read sums written by `save`.

        Raises:
            InputError: the file does not hold the scores of all axes.
        """
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if "scores" not in metadata:
                raise InputError(f"{path} does not hold the scores of all axes; score the model again")
            header = json.loads(metadata["scores"])
        tensors = load_file(path)
        layers = LayerScores(tensors.pop("angle"), tensors.pop("cosine"), *tensors.pop("counts").tolist())
        experts = list(tensors.pop("experts", torch.zeros(0)))
        channels = {name.removeprefix("channels."): sums for name, sums in tensors.items()}
        sites = header.get("site_layers", {})
        return cls(layers, header["sizes"], channels, experts, header["texts"], sites, header["facts"])


def score(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    tokens: str = "all",
    scores: Scores | None = None,
    after_batch: Callable[[Scores], None] = lambda _: None,
) -> Scores:
    """Add batches to the scores of every axis, in one forward pass of the decoder, without running the LM head.

    Args:
        model: a causal LM in eval mode, on one device, on several, or offloaded by accelerate.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`; leave out those that `scores`
            already holds.
        tokens: the positions that block distances are measured at: `all`, or `last` (the last token of each text).
            The other axes are always scored on all tokens.
        scores: sums to continue from; pass `empty_scores(model, metadata)` to store metadata.
        after_batch: called with the scores after each batch, to save them.

    Returns:
        `scores`, updated in place, or new ones.

    Raises:
        InputError: the model type has no row in the family table.
    """
    scores = scores or empty_scores(model)

    def counted_batches() -> Iterable[Batch]:
        for batch in batches:
            yield batch
            scores.num_texts += int(counted_positions(batch).any(dim=1).sum())
            scores.layers.num_batches += 1
            after_batch(scores)

    observe(model, counted_batches(), _observers(model, scores, tokens))
    return scores


def empty_scores(model: PreTrainedModel, metadata: dict | None = None) -> Scores:
    """Return scores over no texts."""
    sizes = axis_sizes(model.config, row_for(model.config))
    return Scores(LayerScores.empty(sizes[LAYERS]), sizes, metadata=metadata or {})


def _observers(model: PreTrainedModel, scores: Scores, tokens: str) -> list[Observer]:
    return [LayerObserver(scores.layers, tokens), *unit_observers(model, scores)]


def unit_observers(model: PreTrainedModel, scores: Scores) -> list[Observer]:
    """Return the observers that fill the scores of all axes but blocks, each sharing its sums with them."""
    family = row_for(model.config)
    units = [site for site in unit_sites(model, family) if site.key in family.axes]
    channels = ChannelObserver([*stream_sites(model), *units], scores.channels, scores.sizes)
    scores.channels = channels.sums
    scores.site_layers = {axis: [site.layer for site in units if site.key == axis] for axis in (HEADS, NEURONS)}
    observers: list[Observer] = [channels]
    if EXPERTS in scores.sizes:
        experts = ExpertObserver(scores.sizes[LAYERS], scores.experts)
        scores.experts = experts.sums
        observers.append(experts)
    return observers
