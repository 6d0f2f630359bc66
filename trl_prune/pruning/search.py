"""Which candidate to train in full: successive halving of short trainings (2407.14679, section 4.3).

Scores before any training mislead: the paper's ranking changes during the first 300 steps and then holds (Figure 9).
So all candidates are scored, the better part of them is trained for a while, the better part of those for longer, and
so on. How much the ranking still changes from one rung to the next is measured. The caller defines score and training.
"""

import math
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from scipy.stats import kendalltau, spearmanr


# Scores of one rung, by candidate; lower is better.
RungScores = dict[str, float]
# The number of candidates is divided by this from one rung to the next.
HALVING_FACTOR = 2


@dataclass(frozen=True)
class HalvingResult:
    """The scores that successive halving measured.

    Attributes:
        rungs: scores at each rung, beginning with those before any training; lower is better.
    """

    rungs: list[RungScores]

    @property
    def ranking(self) -> list[str]:
        """All candidates, the best first: by the last rung that they reached, then by their score there."""
        order: list[str] = []
        for scores in reversed(self.rungs):
            order += [name for name in ranked(scores) if name not in order]
        return order

    @property
    def winner(self) -> str:
        """The best candidate of the last rung."""
        return self.ranking[0]

    def stability(self) -> list[dict[str, float | int | None]]:
        """Return how well the rankings of consecutive rungs agree, over the candidates that reached both.

        Returns:
            For each pair of consecutive rungs, `{candidates, kendall, spearman}`: rank correlations in [-1, 1]; None
            for fewer than two candidates or where all scores are equal.
        """
        return [_agreement(before, after) for before, after in zip(self.rungs, self.rungs[1:], strict=False)]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Return the candidates, the lowest score first; NaN counts as the worst score."""
    return sorted(scores, key=lambda name: math.inf if math.isnan(scores[name]) else scores[name])


def _agreement(before: RungScores, after: RungScores) -> dict[str, float | int | None]:
    scores_before = [before[name] for name in after]
    scores_after = list(after.values())
    agreement: dict[str, float | int | None] = {"candidates": len(after), "kendall": None, "spearman": None}
    if len(set(scores_before)) > 1 and len(set(scores_after)) > 1:  # correlations with a constant are undefined
        for name, correlation in (("kendall", kendalltau), ("spearman", spearmanr)):
            agreement[name] = round(float(correlation(scores_before, scores_after).statistic), 9)
    return agreement


def successive_halving(
    names: Sequence[str],
    survivors: Sequence[int],
    measure: Callable[[str, int], float],
    store: MutableMapping[str, float],
    drop: Callable[[Collection[str]], None] = lambda _: None,
) -> HalvingResult:
    """Score candidates, then train and score the better part of them again at each rung.

    Args:
        names: the candidates.
        survivors: number of candidates that are trained to each rung; empty to choose by the scores before training.
        measure: returns the score of a candidate after a rung; rung 0 is before any training. Lower is better.
        store: measured scores by `rung/name`. Each score is stored as soon as it is measured, and stored ones are not
            measured again, so that an interrupted search resumes.
        drop: called after each rung with the candidates that are not trained further.
    """
    rungs = [_measured(names, 0, measure, store)]
    for rung, count in enumerate(survivors, start=1):
        order = ranked(rungs[-1])
        if len(order) < 2:
            break
        drop(order[count:])
        rungs.append(_measured(order[:count], rung, measure, store))
    return HalvingResult(rungs)


def _measured(
    names: Sequence[str], rung: int, measure: Callable[[str, int], float], store: MutableMapping[str, float]
) -> RungScores:
    scores = {}
    for name in names:
        key = f"{rung}/{name}"
        if key not in store:
            store[key] = measure(name, rung)
        scores[name] = store[key]
    return scores


def halving_schedule(count: int, rungs: int, factor: float = HALVING_FACTOR) -> list[int]:
    """Return how many candidates are trained to each rung: all, then the better part each time, at least two.

    A single candidate has nothing to be compared with and is not trained.
    """
    return [max(2, math.ceil(count / factor**rung)) for rung in range(rungs) if count > 1]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the candidates that no other candidate beats in both cost and score, the cheapest first.

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
