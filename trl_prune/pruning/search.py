"""Which candidate to train in full: a successive_halving of short trainings (2407.14679, section 4.3).

Zero-shot scores mislead: the paper's ranking changes during the first 300 steps of training and then holds (Figure 9).
So candidates are trained for a while each, the better part of them for longer, and so on (successive halving); how far
the ranking still moved from one rung to the next is measured. What a score is and how one trains is the caller's.
"""

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau, spearmanr


# Scores of one rung, by candidate; lower is better.
Scores = dict[str, float]
# The share of a rung's candidates that goes on to the next.
HALVING = 2


@dataclass(frozen=True)
class HalvingResult:
    """What a successive_halving found.

    Attributes:
        rungs: scores at each rung, before any training first; lower is better.
    """

    rungs: list[Scores]

    @property
    def ranking(self) -> list[str]:
        """Every candidate, the best first: those that came farther, and of those the lower score."""
        order: list[str] = []
        for scores in reversed(self.rungs):
            order += [name for name in ranked(scores) if name not in order]
        return order

    @property
    def winner(self) -> str:
        """The best candidate of the last rung."""
        return self.ranking[0]

    def stability(self) -> list[dict[str, float | int | None]]:
        """Return how well each rung's ranking agrees with the next one's, over the candidates that ran in both.

        Returns:
            For each step from one rung to the next, `{candidates, kendall, spearman}`: rank correlations in [-1, 1],
            None for fewer than two candidates or where all scores are equal.
        """
        return [_agreement(before, after) for before, after in zip(self.rungs, self.rungs[1:], strict=False)]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return the candidates, the lowest score first; a score that is no number counts as the worst."""
    return sorted(scores, key=lambda name: math.inf if math.isnan(scores[name]) else scores[name])


def _agreement(before: Scores, after: Scores) -> dict[str, float | int | None]:
    one, other = zip(*((before[name], after[name]) for name in after), strict=True)
    told = {"kendall": None, "spearman": None}
    if len(set(one)) > 1 and len(set(other)) > 1:  # a constant ranking correlates with nothing
        measures = {"kendall": kendalltau, "spearman": spearmanr}
        told = {name: round(float(measure(one, other).statistic), 9) for name, measure in measures.items()}
    return {"candidates": len(one)} | told


def successive_halving(
    names: Sequence[str],
    survivors: Sequence[int],
    measure: Callable[[str, int], float],
    store: MutableMapping[str, float],
    dropped: Callable[[Collection[str]], None] = lambda _: None,
) -> HalvingResult:
    """Score candidates, and train the better part of them for longer and longer, until the rungs end.

    Args:
        names: the candidates.
        survivors: how many go on to each rung of training; none for a choice by zero-shot score alone.
        measure: the score of a candidate after a rung; 0 is before any training. Lower is better.
        store: what was measured before, by `rung/name`; each score is put there as soon as it is known, so that an
            interrupted successive_halving goes on.
        dropped: told which candidates are out, after each rung.
    """
    rungs = [_measured(names, 0, measure, store)]
    for rung, places in enumerate(survivors, start=1):
        order = ranked(rungs[-1])
        if len(order) < 2:
            break
        dropped(order[places:])
        rungs.append(_measured(order[:places], rung, measure, store))
    return HalvingResult(rungs)


def _measured(
    names: Sequence[str], rung: int, measure: Callable[[str, int], float], store: MutableMapping[str, float]
) -> Scores:
    scores = {}
    for name in names:
        key = f"{rung}/{name}"
        if key not in store:
            store[key] = measure(name, rung)
        scores[name] = store[key]
    return scores


def halving_schedule(count: int, rungs: int, factor: float = HALVING) -> list[int]:
    """Return how many candidates run at each rung: all, then each time the better part, never fewer than two.

    One alone has nothing to be compared with and is not trained.
    """
    return [max(2, math.ceil(count / factor**rung)) for rung in range(rungs) if count > 1]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the candidates that no other beats in both cost and score, the cheapest first.

    Args:
        points: cost and score of each candidate; lower is better for both.
    """
    front: list[str] = []
    best = math.inf
    for name in sorted(points, key=lambda name: points[name]):
        if points[name][1] < best:
            front.append(name)
            best = points[name][1]
    return front
