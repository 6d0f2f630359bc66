"""Losses of the model without some of its blocks: each measured once, stored, and its cost counted."""

import math
import sys
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trl_prune.pruning.choosing.removal import REMOVAL_STRATEGIES, Choice, SearchOptions
from trl_prune.pruning.choosing.shared_runs import num_block_runs


# By part of the texts: the sum of a loss over positions, and their number, by the removed blocks, such as `3,7`.
SumsByChoice = dict[str, list]


class Effect(Protocol):
    """What removing blocks does, measured on texts that come in parts.

    Attributes:
        tokens: the number of tokens of each part.
        at_once: how many choices are measured before their sums are stored.
    """

    tokens: Sequence[int]
    at_once: int

    def sums(self, part: int, choices: Sequence[Choice]) -> list[tuple[float, int]]:
        """Return the sum of the loss over a part's positions and the number of these, for each choice."""
        ...

    def block_runs(self, choices: Sequence[Choice]) -> int:
        """Return how many blocks run, each on all tokens of a part, to measure choices at once."""
        ...


@dataclass
class MeasuredLosses:
    """The losses that an effect gives, as `removal.Losses`.

    Attributes:
        effect: what is measured.
        store: the sums by part, so that an interrupted search goes on after the last part that it measured.
        after_measuring: called with the number of choices that were asked for the first time, for progress.
    """

    effect: Effect
    store: MutableMapping[str, SumsByChoice] = field(default_factory=dict)
    after_measuring: Callable[[int], object] = lambda _: None
    _asked: list[set[Choice]] = field(init=False)
    _block_tokens: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._asked = [set() for _ in self.effect.tokens]

    def __call__(self, choices: Iterable[Choice], share: float = 1.0) -> list[float]:
        """Return each choice's mean loss, infinity where it is no number; a share takes every so many parts."""
        choices = [tuple(sorted(choice)) for choice in choices]
        known = len(set().union(*self._asked))
        step = min(round(1 / share), len(self._asked))
        parts = range(0, len(self._asked), step)
        for part in parts:
            self._measure(part, list(dict.fromkeys(choices)))
        self.after_measuring(len(set().union(*self._asked)) - known)
        return [self._mean(choice, parts) for choice in choices]

    def _measure(self, part: int, choices: Sequence[Choice]) -> None:
        new = [choice for choice in choices if choice not in self._asked[part]]
        if not new:
            return
        self._asked[part].update(new)
        # Counted as if nothing was stored, so that a search that was interrupted ends with the same figures.
        self._block_tokens += self.effect.block_runs(new) * self.effect.tokens[part]
        stored = self.store.get(_part_key(part), {})
        missing = [choice for choice in new if _key(choice) not in stored]
        for start in range(0, len(missing), self.effect.at_once):
            group = missing[start : start + self.effect.at_once]
            found = zip(group, self.effect.sums(part, group), strict=True)
            stored = stored | {_key(choice): list(sums) for choice, sums in found}
            self.store[_part_key(part)] = stored

    def _mean(self, choice: Choice, parts: Iterable[int]) -> float:
        sums = [self.store[_part_key(part)][_key(choice)] for part in parts]
        totals = [math.nan if total is None else total for total, _ in sums]  # JSON has no NaN
        if not all(map(math.isfinite, totals)):
            return math.inf
        return math.fsum(totals) / max(sum(count for _, count in sums), 1)

    @property
    def cost(self) -> "Cost":
        """What was asked for so far, whether it was measured now or stored before."""
        return Cost(len(set().union(*self._asked)), self._block_tokens, sum(self.effect.tokens))


@dataclass(frozen=True)
class Cost:
    """What a search costs, the LM head left out.

    Attributes:
        choices: how many choices of blocks were measured, on all texts or on some.
        block_tokens: forward passes of one block times the tokens that went through it.
        tokens: the tokens of all texts.
    """

    choices: int
    block_tokens: int
    tokens: int

    def dense_passes(self, num_layers: int) -> float:
        """Return the cost in passes of the dense model over all texts."""
        return self.block_tokens / max(num_layers * self.tokens, 1)


class Rehearsal:
    """An effect that measures nothing: each block costs what its index says, and removals add up."""

    at_once = sys.maxsize

    def __init__(self, num_layers: int, num_parts: int, replaced: bool) -> None:
        self.tokens, self._num_layers, self._replaced = [1] * num_parts, num_layers, replaced

    def sums(self, part: int, choices: Sequence[Choice]) -> list[tuple[float, int]]:  # noqa: ARG002
        """Return sums of losses that are all different."""
        return [(sum((layer + 1) * 0.618 % 1 for layer in choice), 1) for choice in choices]

    def block_runs(self, choices: Sequence[Choice]) -> int:
        """Return how many blocks would run."""
        return num_block_runs(choices, self._num_layers, replaced=self._replaced)


def expected_cost(  # noqa: PLR0913
    strategy: str, num_layers: int, count: int, num_parts: int, options: SearchOptions, replaced: bool = False
) -> Cost:
    """Return the cost of a search for blocks, on texts of one token for each part, before it is made.

    That of `beam` and `evolutionary` depends on which choices meet, that of `swap` on how often it improves: there it
    is what blocks cost whose effects add up. `replaced`: whether something is computed in the place of removed blocks.
    """
    losses = MeasuredLosses(Rehearsal(num_layers, num_parts, replaced))
    REMOVAL_STRATEGIES[strategy](losses, num_layers, count, options)
    return losses.cost


def _key(choice: Choice) -> str:
    return ",".join(map(str, choice))


def _part_key(part: int) -> str:
    return f"part {part}"
