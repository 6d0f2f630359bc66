"""Importance of decoder blocks, from what they do to the residual stream: one streaming pass, forward only."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel


Batch = dict[str, Tensor]
# Positions are compared a few at a time: the (blocks + 1)^2 cosines of a long batch at once would outweigh the model.
POSITIONS_AT_A_TIME = 512


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
        part = path.with_name(f".{path.name}.part")
        # Counts as a tensor: safetensors writes metadata in another order each time, and equal scores are equal files.
        counts = torch.tensor([self.positions, self.batches])
        save_file({"angle": self.angle, "cosine": self.cosine, "counts": counts}, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "LayerScores":
        """Read sums that `save` wrote."""
        stored = load_file(path)
        return cls(stored["angle"], stored["cosine"], *stored["counts"].tolist())


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return a causal LM's decoder blocks."""
    decoder = model.get_decoder()
    lists = [child for child in decoder.children() if isinstance(child, nn.ModuleList)]
    return next(blocks for blocks in lists if len(blocks) == model.config.num_hidden_layers)


@contextmanager
def observed_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Yield a list that each forward pass fills with every block's input and the last block's output.

    The last block's output is taken by hook because `hidden_states[-1]` of transformers is after the final norm.
    """
    seen: list[Tensor] = []
    blocks = decoder_blocks(model)

    def before(_: nn.Module, args: tuple, kwargs: dict) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    def after(_: nn.Module, __: tuple, output: Tensor | tuple) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def wanted_positions(attention_mask: Tensor, tokens: str) -> Tensor:
    """Return the mask of the positions that count, `(batch, tokens)`: every token, or each row's last."""
    mask = attention_mask.bool()
    if tokens == "all":
        return mask
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = torch.where(mask, places, -1).amax(dim=1, keepdim=True)
    return (places == last) & mask


@torch.inference_mode()
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
    decoder = model.get_decoder()
    with observed_inputs(model) as seen:
        for batch in batches:
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            decoder(**inputs, use_cache=False)
            _add(scores, seen, wanted_positions(inputs["attention_mask"], tokens))
            seen.clear()
            after_batch(scores)
    return scores


def _add(scores: LayerScores, seen: list[Tensor], wanted: Tensor) -> None:
    states = torch.stack([state[wanted] for state in seen], dim=1)  # (positions, L + 1, hidden)
    for chunk in states.split(POSITIONS_AT_A_TIME):
        unit = nn.functional.normalize(chunk.float(), dim=-1)
        cosine = (unit @ unit.mT).clamp(-1, 1)  # rounding past 1 would make arccos NaN
        scores.cosine += cosine.sum(dim=0, dtype=torch.float64).cpu()
        scores.angle += (cosine.arccos() / torch.pi).sum(dim=0, dtype=torch.float64).cpu()
    scores.positions += int(wanted.sum())
    scores.batches += 1


class Skipped(nn.Module):
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
        blocks[index] = Skipped()
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
        labels = inputs["input_ids"][:, 1:].masked_fill(inputs["attention_mask"][:, 1:] == 0, -100)
        total += nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum").item()
        count += int((labels != -100).sum())
    return total / max(count, 1)
