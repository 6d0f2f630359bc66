"""Recovery: the share of the dense model's score that a smaller model reaches, with its standard error.

Scores are kept per item, so that models are compared on the same items (paired) rather than by two means.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trl_prune.evaluation.task_metrics import PERPLEXITIES


# Bootstrap resamples.
RESAMPLES = 2000


@dataclass(frozen=True)
class TaskScore:
    """A model's scores on one task.

    Attributes:
        task: the lm-eval task.
        metric: the metric of the items' scores.
        items: one score per item, in the task's order.
        chance: the score of guessing; None where it is unknown.
        capability: what the task measures, for reports.
        kind: `choice`, `generation`, `continuation` or `likelihood`; None where it is unknown.
        higher_is_better: whether a higher mean is a better one.
        doc_hashes: the hash of each item's document, by which results are aligned.
        weights: of each item, where items do not weigh the same (a text's words).
        loops: of generated answers, whether each ends in a loop.
        repeats: how many answers were generated for each item.
    """

    task: str
    metric: str
    items: list[float] = field(repr=False)
    chance: float | None = None
    capability: str | None = None
    kind: str | None = None
    higher_is_better: bool = True
    doc_hashes: list[str] | None = field(default=None, repr=False)
    weights: list[float] | None = field(default=None, repr=False)
    loops: list[bool] | None = field(default=None, repr=False)
    repeats: int = 1

    @property
    def item_mean(self) -> float:
        """The (weighted) mean of the items' scores, of a perplexity in nats."""
        return float(np.average(self.items, weights=self.weights))

    @property
    def mean(self) -> float:
        """The task's score as lm-eval aggregates it: the mean over items, or exp of it for a perplexity."""
        return float(np.exp(self.item_mean)) if self.metric in PERPLEXITIES else self.item_mean

    @property
    def stderr(self) -> float:
        """The standard error of `mean`; of weighted items and perplexities to first order."""
        count = len(self.items)
        if count < 2:
            return float("nan")
        weights = np.ones(count) if self.weights is None else np.asarray(self.weights) / np.mean(self.weights)
        spread = np.sqrt(np.sum((weights * (np.asarray(self.items) - self.item_mean)) ** 2) / (count - 1) / count)
        return float(spread * (self.mean if self.metric in PERPLEXITIES else 1.0))


Scores = Mapping[str, TaskScore]


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error, and the ends of its 95 % interval where resamples give one."""

    value: float
    stderr: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Recovery:
    """A model's scores over a set of tasks, relative to the dense model's.

    Attributes:
        score: mean score over tasks.
        recovery: mean score / dense mean score.
        corrected: chance-corrected recovery, (s - c) / (d - c); None where the chance of a task is unknown.
        gap_closed: (s - pruned) / (dense - pruned); None without a pruned model's scores.
    """

    score: Estimate
    recovery: Estimate
    corrected: Estimate | None
    gap_closed: Estimate | None


def recovery(model: Scores, dense: Scores, pruned: Scores | None = None, seed: int = 0) -> Recovery:
    """Return a model's recovery over the dense model's tasks, which all weigh the same.

    The models have the same items in the same order. Standard errors and intervals are those of a paired bootstrap:
    items are resampled once for all models.
    """
    models = [model, dense, *([pruned] if pruned else [])]
    by_task = [resampled_scores([scores[task] for scores in models], seed + index) for index, task in enumerate(dense)]
    means, dense_means, *others = np.mean(by_task, axis=0).T
    chances = [score.chance for score in dense.values()]
    chance = None if None in chances else float(np.mean(chances))
    return Recovery(
        score=estimate(means),
        recovery=estimate(ratio(means, dense_means)),
        corrected=None if chance is None else estimate(ratio(means - chance, dense_means - chance)),
        gap_closed=estimate(ratio(means - others[0], dense_means - others[0])) if others else None,
    )


def resampled_scores(scores: Sequence[TaskScore], seed: int = 0) -> np.ndarray:
    """Return the scores of models on one task for resamples of its items, the same ones for all models.

    Args:
        scores: of each model, with the same items in the same order.
        seed: of the draws.

    Returns:
        `(1 + RESAMPLES, models)`; the first row is of the items themselves.
    """
    count, weights = len(scores[0].items), scores[0].weights
    columns = np.asarray([score.items for score in scores] + [np.ones(count) if weights is None else weights])
    # Items on which all models score alike are drawn as one: a large task of right and wrong answers costs little.
    outcomes, counts = np.unique(columns, axis=1, return_counts=True)
    values, weight = outcomes[:-1], outcomes[-1]
    draws = np.vstack([counts, np.random.default_rng(seed).multinomial(count, counts / count, RESAMPLES)]) * weight
    means = (draws @ values.T) / draws.sum(axis=1, keepdims=True)
    return np.exp(means) if scores[0].metric in PERPLEXITIES else means


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a ratio for each resample, NaN where the denominator is 0."""
    is_nonzero = np.abs(denominator) > np.finfo(float).eps
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=is_nonzero)


def estimate(values: np.ndarray) -> Estimate:
    """Return the first of resampled values, with the standard deviation and the 95 % interval of the others."""
    resampled = values[1:][np.isfinite(values[1:])]
    if len(resampled) < 2:
        return Estimate(float(values[0]), float("nan"))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Estimate(float(values[0]), float(np.std(resampled, ddof=1)), float(low), float(high))


def paired_difference(first: Scores, second: Scores) -> Estimate:
    """Return the mean over tasks of `first - second` on the same items, and its standard error."""
    differences = [np.asarray(first[task].items) - np.asarray(second[task].items) for task in first]
    variance = sum(np.var(d, ddof=1) / len(d) for d in differences if len(d) > 1)
    mean = float(np.mean([d.mean() for d in differences]))
    return Estimate(mean, float(np.sqrt(variance) / len(differences)))


def subset(scores: Scores, capabilities: Collection[str], inside: bool) -> dict[str, TaskScore]:
    """Return the tasks whose capability is (or is not) among capabilities; tasks that name none are left out."""
    return {
        task: score
        for task, score in scores.items()
        if score.capability is not None and (score.capability in capabilities) is inside
    }
