"""Importance of decoder blocks, from how they change the residual stream: one streaming forward-only pass."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.errors import InputError
from trl_prune.pruning.importance.forward import Batch, observe
from trl_prune.pruning.importance.hooks import activation_hooks, decoder_blocks, stream_sites


# Positions are compared in chunks: the states of all blocks for all positions would need more memory than the model,
# and on a CPU a chunk should fit the cache.
POSITIONS_PER_CHUNK = {"cpu": 32, "cuda": 512}


@dataclass
class LayerScores:
    """Running sums of the distances between the residual stream before and after every run of blocks.

    `x^(l)` is the input of block `l`, `x^(L)` the output of the last block before the final norm; each sum has shape
    `(L + 1, L + 1)`, float64, indexed `[l, l + n]`.

    Attributes:
        angle: sum over positions of `arccos(cos(x^(l), x^(l+n))) / pi`.
        cosine: sum over positions of `cos(x^(l), x^(l+n))`.
        num_positions: number of positions in the sums.
        num_batches: number of batches in the sums, for resuming.
    """

    angle: Tensor
    cosine: Tensor
    num_positions: int = 0
    num_batches: int = 0

    @classmethod
    def empty(cls, num_layers: int) -> "LayerScores":
        """Return sums over no positions."""
        shape = (num_layers + 1, num_layers + 1)
        return cls(torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))

    @property
    def num_layers(self) -> int:
        """The number of decoder blocks scored."""
        return len(self.angle) - 1

    def angular_distance(self) -> Tensor:
        """Return the mean angular distance of every run of blocks, `(L + 1, L + 1)`, in [0, 1] (2410.09982)."""
        return self.angle / max(self.num_positions, 1)

    def block_influence(self) -> Tensor:
        """Return `1 - E[cos(x^(l), x^(l+1))]` of every block, `(L,)` (2407.14679, section 2.2)."""
        return 1 - self.cosine.diagonal(offset=1) / max(self.num_positions, 1)

    def check_finite(self) -> None:
        """Check that the sums are numbers.

        Raises:
            InputError: they are not; the sentence names the first block whose output is none.
        """
        if self.cosine.isfinite().all():
            return
        first = int((~self.cosine.diagonal().isfinite()).nonzero()[0])
        place = f"block {first - 1}" if first else "the embedding"
        raise InputError(
            f"the output of {place} is NaN or infinite on the calibration texts: the model is damaged, or its values "
            "are too large for the run's dtype"
        )

    @classmethod
    def load(cls, path: Path) -> "LayerScores":
        """Read the sums from a file of scores."""
        tensors = load_file(path)
        return cls(tensors["angle"], tensors["cosine"], *tensors["counts"].tolist())


class LayerObserver:
    """Accumulates the distances between the residual stream before and after every run of blocks."""

    def __init__(self, scores: LayerScores, tokens: str = "all") -> None:
        self.scores, self.tokens = scores, tokens
        self._states: list[Tensor] = []

    def attach(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the residual stream is read."""
        return activation_hooks(stream_sites(model), lambda _, states: self._states.append(states))

    def before_forward(self, attention_mask: Tensor) -> None:
        """Choose the positions to score."""
        self._scored = scored_positions(attention_mask, self.tokens)

    def after_forward(self) -> None:
        """Add all pairs of the pass's states, a chunk of positions at a time."""
        for row, is_scored in enumerate(self._scored):
            positions = is_scored.nonzero().squeeze(1)
            for chunk in positions.split(_chunk_size(is_scored.device)):
                self._add(torch.stack([_select(states[row], chunk) for states in self._states], dim=1))
        self.scores.num_positions += int(self._scored.sum())
        self._states.clear()
        self.scores.check_finite()

    def add(self, states: Sequence[Tensor]) -> None:
        """Add all pairs of states that hold the scored positions alone, in the same chunks.

        Args:
            states: before the first and after every block, `(positions, hidden_size)` each, row after row.
        """
        counts = self._scored.sum(dim=1).tolist()
        for rows in zip(*(state.split(counts) for state in states), strict=True):
            chunks = (row.split(_chunk_size(self._scored.device)) for row in rows)
            for chunk in zip(*chunks, strict=True):
                if len(chunk[0]):
                    self._add(torch.stack(chunk, dim=1))
        self.scores.num_positions += sum(counts)
        self.scores.check_finite()

    def _add(self, states: Tensor) -> None:
        """Add states, `(positions, L + 1, hidden_size)`; the diagonals of their Gram matrices are squared norms."""
        states = states.float()
        products = states @ states.mT
        norms = products.diagonal(dim1=1, dim2=2).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        # Rounding past 1 would make arccos NaN.
        cosine = (products / norms[:, :, None] / norms[:, None, :]).clamp(-1, 1)
        self.scores.cosine += cosine.sum(dim=0, dtype=torch.float64).cpu()
        self.scores.angle += (cosine.arccos() / torch.pi).sum(dim=0, dtype=torch.float64).cpu()


def _chunk_size(device: torch.device) -> int:
    return POSITIONS_PER_CHUNK.get(device.type, POSITIONS_PER_CHUNK["cuda"])


def _select(states: Tensor, positions: Tensor) -> Tensor:
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions):  # a view, where the positions are contiguous
        return states[first : last + 1]
    return states[positions.to(states.device)]


def scored_positions(attention_mask: Tensor, tokens: str) -> Tensor:
    """Return the mask of the positions to score, `(batch, tokens)`: every token, or the last token of each row.

    Raises:
        InputError: `tokens` is neither `all` nor `last`.
    """
    if tokens not in ("all", "last"):
        raise InputError(f"tokens is {tokens!r}; allowed: all, last")
    mask = attention_mask.bool()
    if tokens == "all":
        return mask
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = torch.where(mask, positions, -1).amax(dim=1, keepdim=True)
    return (positions == last) & mask


def score_layers(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    tokens: str = "all",
    scores: LayerScores | None = None,
) -> LayerScores:
    """Add batches to the distances between all pairs of block inputs, without running the LM head.

    Sums are over positions, so neither padding nor the split into batches changes a score beyond float64 rounding.

    Args:
        model: a causal LM in eval mode.
        batches: dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`; leave out those that `scores`
            already holds.
        tokens: `all`, or `last` (the last token of each text: the papers' choice, which needs thousands of texts).
        scores: sums to continue from.

    Returns:
        `scores`, updated in place, or new ones.
    """
    scores = scores or LayerScores.empty(len(decoder_blocks(model)))

    def count_batch() -> None:
        scores.num_batches += 1

    observe(model, batches, [LayerObserver(scores, tokens)], count_batch)
    return scores
