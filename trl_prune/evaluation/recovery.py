"""Recovery: how much of the dense model's score a smaller one has, with the error of the measurement.

Scores come as one number per item, so that models are compared on the same items (paired), not as two averages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


RESAMPLES = 2000


@dataclass(frozen=True)
class TaskScore:
    """A model's scores on one task.

    Attributes:
        task: the lm-eval task.
        metric: the metric the items hold.
        items: one score per item, in the task's order.
        chance: the score of guessing; None where it is unknown.
        capability: for reports.
        trained: whether the recovery data has rows of this capability; None where it is unknown.
    """

    task: str
    metric: str
    items: list[float] = field(repr=False)
    chance: float | None = None
    capability: str | None = None
    trained: bool | None = None

    @property
    def mean(self) -> float:
        """The task's score."""
        return float(np.mean(self.items))

    @property
    def stderr(self) -> float:
        """The standard error of the score over items."""
        return float(np.std(self.items, ddof=1) / np.sqrt(len(self.items))) if len(self.items) > 1 else float("nan")


Scores = Mapping[str, TaskScore]


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class Recovery:
    """What one model kept of the dense one over a set of tasks.

    Attributes:
        score: mean score over tasks.
        recovery: mean score / dense mean score.
        corrected: the same above chance, (s - c) / (d - c); None where a task's chance is unknown.
        gap_closed: (s - pruned) / (dense - pruned); None without a pruned model's scores.
    """

    score: Estimate
    recovery: Estimate
    corrected: Estimate | None
    gap_closed: Estimate | None


def recovery(model: Scores, dense: Scores, pruned: Scores | None = None, seed: int = 0) -> Recovery:
    """Return a model's recovery over the tasks, each task weighing the same.

    Standard errors are those of a paired bootstrap: items are drawn once for all models.
    """
    draws = {task: _draw(len(score.items), seed + number) for number, (task, score) in enumerate(dense.items())}
    own, full = _means(model, draws), _means(dense, draws)
    cut = _means(pruned, draws) if pruned else None
    chances = [score.chance for score in dense.values()]
    chance = None if None in chances else float(np.mean(chances))
    return Recovery(
        score=_estimate(own),
        recovery=_estimate(_ratio(own, full)),
        corrected=None if chance is None else _estimate(_ratio(own - chance, full - chance)),
        gap_closed=None if cut is None else _estimate(_ratio(own - cut, full - cut)),
    )


def _draw(items: int, seed: int) -> np.ndarray:
    """Return item indices, `(1 + RESAMPLES, items)`; the first row is the sample itself."""
    drawn = np.random.default_rng(seed).integers(0, items, (RESAMPLES, items))
    return np.vstack([np.arange(items), drawn])


def _means(scores: Scores, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the mean over tasks for each draw, `(1 + RESAMPLES,)`."""
    return np.mean([np.asarray(scores[task].items)[drawn].mean(axis=1) for task, drawn in draws.items()], axis=0)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=np.abs(below) > np.finfo(float).eps)


def _estimate(values: np.ndarray) -> Estimate:
    spread = values[1:][np.isfinite(values[1:])]
    return Estimate(float(values[0]), float(np.std(spread, ddof=1)) if len(spread) > 1 else float("nan"))


def paired_difference(one: Scores, other: Scores) -> Estimate:
    """Return the mean over tasks of `one - other` on the same items, and its standard error."""
    differences = [np.asarray(one[task].items) - np.asarray(other[task].items) for task in one]
    variance = sum(np.var(d, ddof=1) / len(d) for d in differences if len(d) > 1)
    mean = float(np.mean([d.mean() for d in differences]))
    return Estimate(mean, float(np.sqrt(variance) / len(differences)))


def subset(scores: Scores, trained: bool) -> dict[str, TaskScore]:
    """Return the tasks whose capability has (or has not) rows in the recovery data."""
    return {task: score for task, score in scores.items() if score.trained is trained}
