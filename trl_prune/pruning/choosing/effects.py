"""The measured effect of removing blocks on the model's predictions for calibration texts.

Where a batch says which positions count (`losses.positions.COUNTED`), predictions are compared at these alone.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.losses.positions import MASKED
from trl_prune.pruning.choosing.removal import Choice
from trl_prune.pruning.choosing.shared_runs import InPlaceOf, SharedRuns, num_block_runs
from trl_prune.pruning.importance.forward import Batch, counted_positions, input_device, max_rows, row_slices


# Logits are computed for a few positions at a time: those of all positions would be larger than the model.
MAX_LOGITS = 2**24
# Of the texts that run at once, the dense model's predictions are held together: at most so many logits.
MAX_HELD_LOGITS = 2**26


class PredictionEffect(ABC):
    """What removing blocks does to predictions, as `losses.Effect`; a part of the texts is a batch.

    Attributes:
        model: the dense model, in eval mode.
        batches: dicts with `input_ids` and `attention_mask`, each `(rows, tokens)`, and COUNTED where not all count.
        tokens: the number of tokens of each batch.
        in_place_of: what is computed in the place of removed blocks; None for a plain cut.
    """

    at_once = sys.maxsize

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch], in_place_of: InPlaceOf | None = None) -> None:
        self.model, self.batches = model, list(batches)
        self.tokens = [int(batch["attention_mask"].sum()) for batch in self.batches]
        self._runs = SharedRuns(model, in_place_of)

    @torch.inference_mode()
    def sums(self, part: int, choices: Sequence[Choice]) -> list[tuple[float, int]]:
        """Return the sum of the loss over a batch's positions and the number of these, for each choice.

        The targets of a few rows are computed once for all choices, whose forward passes share what they agree on.
        """
        totals, count = [0.0] * len(choices), 0
        for index, rows in enumerate(self._slices(part)):
            positions = self.positions(rows)
            if not positions.any():
                continue
            targets = list(self.targets(rows, positions, (part, index)))
            for choice, states in self._runs.final_states(rows, choices):
                totals[choice] += self._total(states, positions, targets)
            count += int(positions.sum())
        return [(total, count) for total in totals]

    def block_runs(self, choices: Sequence[Choice]) -> int:
        """Return how many blocks run, each on all tokens of a batch, to measure choices at once."""
        return num_block_runs(choices, len(self._runs), self._shares, self._runs.in_place_of is not None)

    @cached_property
    def _shares(self) -> bool:
        return self._runs.shares(next(self._slices(0)))

    @abstractmethod
    def positions(self, rows: Batch) -> Tensor:
        """Return the mask of the positions whose predictions are compared, `(rows, tokens)` bool."""

    @abstractmethod
    def targets(self, rows: Batch, positions: Tensor, key: tuple[int, int]) -> Iterator[Tensor]:
        """Yield what predictions are compared with, a few positions at a time, `(positions, ...)`.

        Args:
            rows: a few rows of a batch.
            positions: the mask of the positions, `(rows, tokens)` bool.
            key: batch and number of these rows in it.
        """

    @abstractmethod
    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the loss over positions, given their logits, `(positions, vocabulary)` in float32."""

    def _slices(self, part: int) -> Iterator[Batch]:
        batch = self.batches[part]
        logits = batch["input_ids"].shape[1] * self.model.config.get_text_config().vocab_size
        rows = min(max_rows(self.model, batch, input_device(self.model)), MAX_HELD_LOGITS // logits)
        return row_slices(batch, max(rows, 1))

    def _total(self, states: Tensor, positions: Tensor, targets: Sequence[Tensor]) -> float:
        chunks = states[positions.to(states.device)].split(self.chunk_size)
        return sum(
            self.total(self._runs.logits(chunk).float(), target.to(chunk.device)).item()
            for chunk, target in zip(chunks, targets, strict=True)
        )

    @property
    def chunk_size(self) -> int:
        """The number of positions whose logits are computed at once."""
        return max(1, MAX_LOGITS // self.model.config.get_text_config().vocab_size)


class Perplexity(PredictionEffect):
    """The next token's cross-entropy in nats: the logarithm of perplexity."""

    def positions(self, rows: Batch) -> Tensor:
        """Return the mask of the positions that count and have a next token."""
        followed = rows["attention_mask"][:, 1:].bool()
        return counted_positions(rows).bool() & nn.functional.pad(followed, (0, 1))

    def targets(self, rows: Batch, positions: Tensor, key: tuple[int, int]) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the next tokens."""
        labels = nn.functional.pad(rows["input_ids"][:, 1:], (0, 1), value=MASKED)
        yield from labels[positions].split(self.chunk_size)

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the cross-entropies."""
        return nn.functional.cross_entropy(logits, target, reduction="sum")


class DenseEffect(PredictionEffect):
    """A comparison with the dense model, which runs once: its last states are kept on the CPU, not its logits."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch], in_place_of: InPlaceOf | None = None) -> None:
        super().__init__(model, batches, in_place_of)
        self._dense: dict[tuple[int, int], Tensor] = {}

    def positions(self, rows: Batch) -> Tensor:
        """Return the mask of the positions that count."""
        return counted_positions(rows).bool()

    def targets(self, rows: Batch, positions: Tensor, key: tuple[int, int]) -> Iterator[Tensor]:
        """Yield what of the dense model's predictions is compared."""
        if key not in self._dense:
            ((_, states),) = self._runs.final_states(rows, [()])
            self._dense[key] = states[positions.to(states.device)].cpu()
        device = input_device(self.model)
        for chunk in self._dense[key].split(self.chunk_size):
            yield self.target(self._runs.logits(chunk.to(device)).float())

    @abstractmethod
    def target(self, logits: Tensor) -> Tensor:
        """Return what is compared, given the dense model's logits, `(positions, vocabulary)` in float32."""


class Kl(DenseEffect):
    """KL(dense || model) of the next token's distributions, in nats."""

    def target(self, logits: Tensor) -> Tensor:
        """Return the dense model's log-probabilities, `(positions, vocabulary)`."""
        return logits.log_softmax(dim=-1)

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum of the divergences."""
        return nn.functional.kl_div(logits.log_softmax(dim=-1), target, reduction="sum", log_target=True)


class Disagreement(DenseEffect):
    """Whether the model's greedy token is another than the dense model's."""

    def target(self, logits: Tensor) -> Tensor:
        """Return the dense model's greedy tokens, `(positions,)`."""
        return logits.argmax(dim=-1)

    def total(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return how many tokens are others."""
        return (logits.argmax(dim=-1) != target).sum()


EFFECTS: dict[str, Callable[..., PredictionEffect]] = {
    "perplexity": Perplexity,
    "kl": Kl,
    "agreement": Disagreement,
}
