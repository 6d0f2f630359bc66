"""Importance of all axes from one forward-only pass, as sums that serve every target and every aggregation."""

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
from trl_prune.pruning.families import EXPERTS, GROUPS, HEADS, HIDDEN, NEURONS, family_of
from trl_prune.pruning.importance.channels import ChannelObserver, ChannelSums, aggregated
from trl_prune.pruning.importance.experts import NORMS, TOKENS, WEIGHTED, ExpertObserver
from trl_prune.pruning.importance.layers import LayerObserver, LayerScores
from trl_prune.pruning.importance.observation import STREAM, Batch, Observer, observe, stream_sites, unit_sites
from trl_prune.pruning.keep import axis_sizes


@dataclass
class Scores:
    """What one pass found out about every unit of a model.

    Attributes:
        layers: distances between the residual stream before and after every run of blocks.
        channels: by axis (and STREAM) `(sites, 3, 2, channels)`, float64: see ChannelObserver.
        experts: for each block `(3, experts)`, float64, or None where it has none: see ExpertObserver.
        sizes: the model's units of each axis.
        texts: how many texts the sums hold.
        facts: what the caller wants on record (the model's fingerprint, the calibration set).
    """

    layers: LayerScores
    sizes: dict[str, int]
    channels: ChannelSums = field(default_factory=dict)
    experts: list[Tensor | None] = field(default_factory=list)
    texts: int = 0
    facts: dict = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """How many batches the sums hold, for resuming."""
        return self.layers.batches

    def heads(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, heads)`: the L2 norm of the aggregated channels of each head's output."""
        return self._norms(HEADS, self.sizes[HEADS], batch, sequence)

    def groups(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, groups)`: the L2 norm over the heads that share a KV head.

        No paper scores whole groups. A group goes with all its heads, so it weighs what they weigh together.
        """
        return self._norms(HEADS, self.sizes[GROUPS], batch, sequence)

    def _norms(self, axis: str, units: int, batch: str, sequence: str) -> Tensor:
        channels = self._aggregated(axis, batch, sequence)
        return torch.linalg.vector_norm(channels.unflatten(-1, (units, -1)), dim=-1)

    def neurons(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(layers, neurons)`."""
        return self._aggregated(NEURONS, batch, sequence)

    def hidden(self, batch: str = "l2", sequence: str = "mean") -> Tensor:
        """Return `(channels,)`: the aggregated outputs of the norms inside blocks, summed over norms."""
        return self._aggregated(HIDDEN, batch, sequence).sum(dim=0)

    def energy(self) -> Tensor:
        """Return `(channels,)`: the energy (sum of squares) of each residual channel over all blocks' inputs."""
        return self._aggregated(STREAM, "l2", "l2").square().sum(dim=0)

    def _aggregated(self, axis: str, batch: str, sequence: str) -> Tensor:
        if axis not in self.channels:
            raise InputError(f"the scores hold nothing of {axis}; they hold {', '.join(self.channels)}")
        return aggregated(self.channels[axis].cpu(), self.texts, batch, sequence)

    def expert_norms(self, weighted: bool = False) -> Tensor:
        """Return `(layers, experts)`: the mean norm of an expert's output over the tokens routed to it.

        Experts that no token was routed to, and blocks without experts, have 0.

        Args:
            weighted: multiply each norm by the router's weight first.
        """
        sums = torch.stack([self._experts_of(layer) for layer in self.experts])
        return sums[:, WEIGHTED if weighted else NORMS] / sums[:, TOKENS].clamp(min=1)

    def _experts_of(self, sums: Tensor | None) -> Tensor:
        return torch.zeros(3, self.sizes[EXPERTS], dtype=torch.float64) if sums is None else sums.cpu()

    def save(self, path: Path) -> None:
        """Write the sums as safetensors, atomically; `LayerScores.load` reads the distances from the same file."""
        tensors = {"angle": self.layers.angle, "cosine": self.layers.cosine}
        # Counts as a tensor, facts as one JSON text: safetensors writes the entries of its metadata in another order
        # each time, and equal scores are equal files.
        tensors["counts"] = torch.tensor([self.layers.positions, self.layers.batches])
        tensors |= {f"channels.{axis}": sums.cpu() for axis, sums in self.channels.items()}
        if any(layer is not None for layer in self.experts):
            tensors["experts"] = torch.stack([self._experts_of(layer) for layer in self.experts])
        header = {"sizes": self.sizes, "texts": self.texts, "facts": self.facts}
        with atomic_file(path) as part:
            save_file(tensors, part, {"scores": json.dumps(header, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read sums that `save` wrote.

        Raises:
            InputError: the file holds no scores of all axes.
        """
        with safe_open(path, "pt") as stored:
            metadata = stored.metadata() or {}
            if "scores" not in metadata:
                raise InputError(f"{path} holds no scores of all axes; score the model anew")
            header = json.loads(metadata["scores"])
        tensors = load_file(path)
        layers = LayerScores(tensors.pop("angle"), tensors.pop("cosine"), *tensors.pop("counts").tolist())
        experts = list(tensors.pop("experts", torch.zeros(0)))
        channels = {name.removeprefix("channels."): sums for name, sums in tensors.items()}
        return cls(layers, header["sizes"], channels, experts, header["texts"], header["facts"])


def score(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    tokens: str = "all",
    scores: Scores | None = None,
    after_batch: Callable[[Scores], None] = lambda _: None,
) -> Scores:
    """Add batches to the scores of every axis, in one forward pass of the decoder; the LM head never runs.

    Args:
        model: a causal LM in eval mode, on one device, on several, or offloaded by accelerate.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`; those that `scores` already holds
            must be left out.
        tokens: which positions the distances between blocks are of: `all`, or `last` (each text's last). The other
            axes are always scored on all tokens.
        scores: sums to go on from; `empty_scores` where facts are to be on record.
        after_batch: called with the scores after each batch, to save them.

    Raises:
        InputError: the model type has no row.
    """
    scores = scores or empty_scores(model)

    def watching() -> Iterable[Batch]:
        for batch in batches:
            yield batch
            scores.texts += int(batch["attention_mask"].any(dim=1).sum())
            scores.layers.batches += 1
            after_batch(scores)

    observe(model, watching(), observers(model, scores, tokens))
    return scores


def empty_scores(model: PreTrainedModel, facts: dict | None = None) -> Scores:
    """Return scores that hold no text yet."""
    sizes = axis_sizes(model.config, family_of(model.config.model_type))
    return Scores(LayerScores.empty(model.config.num_hidden_layers), sizes, facts=facts or {})


def observers(model: PreTrainedModel, scores: Scores, tokens: str) -> list[Observer]:
    """Return what fills the scores, each writing into them."""
    family = family_of(model.config.model_type)
    channels = ChannelObserver([*stream_sites(model), *unit_sites(model, family)], scores.channels)
    scores.channels = channels.sums
    watching: list[Observer] = [LayerObserver(scores.layers, tokens), channels]
    if EXPERTS in scores.sizes:
        experts = ExpertObserver(model.config.num_hidden_layers, scores.experts)
        scores.experts = experts.sums
        watching.append(experts)
    return watching
