"""Importance of decoder blocks, from what they do to the residual stream: one streaming pass, forward only."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.checkpoints import atomic_file
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.observation import Batch, decoder_blocks, observe, stream_sites, watched


# Positions are compared a few at a time: the states of all blocks at once would outweigh the model, and on a CPU they
# should fit its cache.
POSITIONS_AT_A_TIME = {"cpu": 32, "cuda": 512}


@dataclass
class LayerScores:
    """Running sums of the distances between the residual stream before and after every run of blocks.

    `x^(l)` is the input of block `l`, `x^(L)` the output of the last block before the final norm; each sum has shape
    `(L + 1, L + 1)`, float64, indexed `[l, l + n]`.

    Attributes:
        angle: sum over positions of `arccos(cos(x^(l), x^(l+n))) / pi`.
        cosine: sum over positions of `cos(x^(l), x^(l+n))`.
        positions: how many positions the sums hold.
        batches: how many batches they hold, for resuming.
    """

    angle: Tensor
    cosine: Tensor
    positions: int = 0
    batches: int = 0

    @classmethod
    def empty(cls, num_layers: int) -> "LayerScores":
        """Return sums over nothing."""
        shape = (num_layers + 1, num_layers + 1)
        return cls(torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))

    @property
    def num_layers(self) -> int:
        """The number of decoder blocks scored."""
        return len(self.angle) - 1

    def angular_distance(self) -> Tensor:
        """Return the mean angular distance of every run of blocks, `(L + 1, L + 1)`, in [0, 1] (2410.09982)."""
        return self.angle / max(self.positions, 1)

    def block_influence(self) -> Tensor:
        """Return `1 - E[cos(x^(l), x^(l+1))]` of every block, `(L,)` (2407.14679, section 2.2)."""
        return 1 - self.cosine.diagonal(offset=1) / max(self.positions, 1)

    def save(self, path: Path) -> None:
        """Write the sums as safetensors, atomically."""
        # Counts as a tensor: safetensors writes metadata in another order each time, and equal scores are equal files.
        counts = torch.tensor([self.positions, self.batches])
        with atomic_file(path) as part:
            save_file({"angle": self.angle, "cosine": self.cosine, "counts": counts}, part)

    @classmethod
    def load(cls, path: Path) -> "LayerScores":
        """Read sums that `save` wrote."""
        stored = load_file(path)
        return cls(stored["angle"], stored["cosine"], *stored["counts"].tolist())


class LayerObserver:
    """Adds up the distances between the residual stream before and after every run of blocks."""

    def __init__(self, scores: LayerScores, tokens: str = "all") -> None:
        self.scores, self.tokens = scores, tokens
        self._seen: list[Tensor] = []

    def attached(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the stream is read."""
        return watched(stream_sites(model), lambda _, states: self._seen.append(states))

    def before(self, mask: Tensor) -> None:
        """Learn which positions count."""
        self._wanted = wanted_positions(mask, self.tokens)

    def after(self) -> None:
        """Add all pairs of the pass's states, a few positions at a time."""
        for row, wanted in enumerate(self._wanted):
            places = wanted.nonzero().squeeze(1)
            for some in places.split(POSITIONS_AT_A_TIME.get(wanted.device.type, POSITIONS_AT_A_TIME["cuda"])):
                self._add(torch.stack([_rows(states[row], some) for states in self._seen], dim=1))
        self.scores.positions += int(self._wanted.sum())
        self._seen.clear()

    def _add(self, states: Tensor) -> None:
        """Add states, `(positions, L + 1, hidden)`: their Gram matrices hold the norms on the diagonal."""
        states = states.float()
        products = states @ states.mT
        norms = products.diagonal(dim1=1, dim2=2).sqrt().clamp(min=torch.finfo(torch.float32).tiny)
        # Rounding past 1 would make arccos NaN.
        cosine = (products / norms[:, :, None] / norms[:, None, :]).clamp(-1, 1)
        self.scores.cosine += cosine.sum(dim=0, dtype=torch.float64).cpu()
        self.scores.angle += (cosine.arccos() / torch.pi).sum(dim=0, dtype=torch.float64).cpu()


def _rows(states: Tensor, places: Tensor) -> Tensor:
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):  # a view, where there is no padding in between
        return states[first : last + 1]
    return states[places.to(states.device)]


def wanted_positions(attention_mask: Tensor, tokens: str) -> Tensor:
    """Return the mask of the positions that count, `(batch, tokens)`: every token, or each row's last.

    Raises:
        InputError: `tokens` is neither `all` nor `last`.
    """
    if tokens not in ("all", "last"):
        raise InputError(f"tokens is {tokens!r}; allowed: all, last")
    mask = attention_mask.bool()
    if tokens == "all":
        return mask
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = torch.where(mask, places, -1).amax(dim=1, keepdim=True)
    return (places == last) & mask


def score_layers(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    tokens: str = "all",
    scores: LayerScores | None = None,
    after_batch: Callable[[LayerScores], None] = lambda _: None,
) -> LayerScores:
    """Add batches to the distances between all pairs of block inputs; the LM head never runs.

    Sums are over positions, so neither padding nor the split into batches changes a score beyond float64 rounding.

    Args:
        model: a causal LM in eval mode.
        batches: dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`; those that `scores` already
            holds must be left out.
        tokens: `all`, or `last` (each text's last token: the papers' choice, which needs thousands of texts).
        scores: sums to go on from.
        after_batch: called with the sums after each batch, to save them.
    """
    scores = scores or LayerScores.empty(len(decoder_blocks(model)))

    def counted() -> None:
        scores.batches += 1
        after_batch(scores)

    observe(model, batches, [LayerObserver(scores, tokens)], counted)
    return scores


class IdentityBlock(nn.Module):
    """A decoder block that hands its input on."""

    def forward(self, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        """Return the input."""
        return hidden_states


@contextmanager
def layers_skipped(model: PreTrainedModel, removed: Iterable[int]) -> Iterator[PreTrainedModel]:
    """Run the model as if some blocks were gone; indices, masks and the cache of the others stay as they are."""
    blocks = decoder_blocks(model)
    saved = {index: blocks[index] for index in removed}
    for index in saved:
        blocks[index] = IdentityBlock()
    try:
        yield model
    finally:
        for index, block in saved.items():
            blocks[index] = block


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[Batch]) -> float:
    """Return the mean next-token cross-entropy in nats over all unpadded tokens; perplexity is its exponential."""
    total, count = 0.0, 0
    for batch in batches:
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        labels = inputs["input_ids"][:, 1:].masked_fill(inputs["attention_mask"][:, 1:] == 0, MASKED)
        total += nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum").item()
        count += int((labels != MASKED).sum())
    return total / max(count, 1)
