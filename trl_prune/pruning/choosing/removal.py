"""Which decoder blocks to remove by the measured effect of removing them: the strategies that search for them.

A choice is the removed blocks in ascending order. A strategy asks for the losses of many choices at once, because
those that agree on their first blocks share the work there (`choosing.shared_runs`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from random import Random
from typing import Protocol


Choice = tuple[int, ...]
# The rounds of a generation of the evolutionary search: how many mutants are measured on which share of the texts. The
# best of a round enter the next, and the last one replaces its parent if it is better.
EVOLUTION_ROUNDS = ((16, 1 / 16), (4, 1 / 4), (1, 1.0))
# Blocks that a mutation swaps at most.
MAX_SWAPS = 3


class Losses(Protocol):
    """Losses of the model without some of its blocks; lower is better."""

    def __call__(self, choices: Iterable[Choice], share: float = 1.0) -> list[float]:
        """Return each choice's loss, on all texts or on a share of them."""
        ...


@dataclass(frozen=True)
class SearchOptions:
    """How a strategy searches.

    Attributes:
        beam_width: for `beam`: how many choices of each size are kept.
        generations: for `evolutionary`: how many generations; None for as many as measure about what greedy does.
        seed: for `evolutionary`: of its mutations.
    """

    beam_width: int = 4
    generations: int | None = None
    seed: int = 0


DEFAULTS = SearchOptions()


def removed_greedily(losses: Losses, num_layers: int, count: int, _: SearchOptions = DEFAULTS) -> Choice:
    """Return blocks removed one after the other; each is measured without the blocks removed before."""
    return removed_by_beam(losses, num_layers, count, SearchOptions(beam_width=1))


def removed_by_beam(losses: Losses, num_layers: int, count: int, options: SearchOptions = DEFAULTS) -> Choice:
    """Return the best of several choices that grow by one block at a time; all but the best of each size are dropped.

    A beam as wide as there are choices of any size finds the best of all.
    """
    beam: list[Choice] = [()]
    for _ in range(count):
        grown = {child for choice in beam for child in _with_one_more(choice, num_layers)}
        beam = _best(losses, sorted(grown), options.beam_width)
    return beam[0]


def removed_with_swaps(losses: Losses, num_layers: int, count: int, _: SearchOptions = DEFAULTS) -> Choice:
    """Return the greedy choice after swaps, each of them the best of its kind, as long as one improves it.

    A swap removes the block that costs least and then puts that one back that helps most, or the other way round.
    """
    choice = removed_greedily(losses, num_layers, count)
    while 0 < count < num_layers:
        (more,) = _best(losses, _with_one_more(choice, num_layers), 1)
        (fewer,) = _best(losses, _with_one_less(choice), 1)
        (swapped,) = _best(losses, [choice, *_with_one_less(more), *_with_one_more(fewer, num_layers)], 1)
        if swapped == choice:
            break
        choice = swapped
    return choice


def removed_by_evolution(losses: Losses, num_layers: int, count: int, options: SearchOptions = DEFAULTS) -> Choice:
    """Return the last parent of an evolutionary search with one parent, after the idea of EvoPress (2410.14649).

    A mutant removes as many blocks as its parent, some of them others. Many mutants are measured on few texts and few
    on many. The first parent are the blocks that each cost least on few texts.
    """
    few, generator = EVOLUTION_ROUNDS[0][1], Random(options.seed)
    parent = removed_singly(losses, num_layers, count, share=few)
    if not 0 < count < num_layers:
        return parent
    generations = options.generations or _generations_like_greedy(num_layers, count)
    for _ in range(generations):
        mutants = {_mutated(parent, num_layers, generator) for _ in range(EVOLUTION_ROUNDS[0][0])}
        survivors = sorted(mutants)
        for (_, share), (kept, _) in pairwise(EVOLUTION_ROUNDS):
            survivors = _best(losses, survivors, kept, share)
        (parent,) = _best(losses, [parent, *survivors], 1)
    return parent


def removed_singly(
    losses: Losses, num_layers: int, count: int, _: SearchOptions = DEFAULTS, share: float = 1.0
) -> Choice:
    """Return the blocks whose removal, each by itself, costs least; every block is measured once."""
    cheapest = _best(losses, [(layer,) for layer in range(num_layers)], count, share)
    return tuple(sorted(layer for (layer,) in cheapest))


def removed_contiguously(losses: Losses, num_layers: int, count: int, _: SearchOptions = DEFAULTS) -> Choice:
    """Return the contiguous blocks whose removal costs least; every start is measured."""
    runs = [tuple(range(start, start + count)) for start in range(num_layers - count + 1)]
    return _best(losses, runs, 1)[0]


REMOVAL_STRATEGIES: dict[str, Callable[[Losses, int, int, SearchOptions], Choice]] = {
    "single": removed_singly,
    "contiguous": removed_contiguously,
    "greedy": removed_greedily,
    "beam": removed_by_beam,
    "swap": removed_with_swaps,
    "evolutionary": removed_by_evolution,
}


def _best(losses: Losses, choices: Sequence[Choice], count: int, share: float = 1.0) -> list[Choice]:
    """Return the choices of the lowest losses, the lowest first; of equal ones those that come first."""
    ranked = sorted(zip(losses(choices, share), range(len(choices)), strict=True))
    return [choices[index] for _, index in ranked[:count]]


def _with_one_more(choice: Choice, num_layers: int) -> list[Choice]:
    return [tuple(sorted((*choice, layer))) for layer in range(num_layers) if layer not in choice]


def _with_one_less(choice: Choice) -> list[Choice]:
    return [tuple(layer for layer in choice if layer != restored) for restored in choice]


def _mutated(parent: Choice, num_layers: int, generator: Random) -> Choice:
    """Return a choice of the same size in which some blocks are others, mostly few."""
    kept = [layer for layer in range(num_layers) if layer not in parent]
    drawn = min(generator.randint(1, MAX_SWAPS), generator.randint(1, MAX_SWAPS))
    swaps = min(drawn, len(parent), len(kept))
    restored = set(generator.sample(parent, swaps))
    return tuple(sorted({*parent, *generator.sample(kept, swaps)} - restored))


def _generations_like_greedy(num_layers: int, count: int) -> int:
    """Return how many generations measure about as many texts as the greedy strategy does."""
    greedy = sum(num_layers - removed for removed in range(count))
    return ceil(greedy / sum(mutants * share for mutants, share in EVOLUTION_ROUNDS))
