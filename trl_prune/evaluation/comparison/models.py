"""A model beside the dense one: each task, multiple choice and generation apart, and all items together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trl_prune.evaluation.comparison.flips import flipped, is_binary
from trl_prune.evaluation.comparison.paired_tests import (
    LEVEL,
    detectable_loss,
    detectable_mean_loss,
    first_level,
    holm,
    mcnemar,
    sign_flips,
)
from trl_prune.evaluation.comparison.silent_tasks import AT_CHANCE, silent_tasks
from trl_prune.evaluation.recovery import (
    Estimate,
    Recovery,
    Scores,
    TaskScore,
    estimate,
    ratio,
    recovery,
    resampled_scores,
)


# Groups of tasks. Multiple choice keeps most of its score where generation has lost most of it (OverRep, 2609.06974).
CHOICE, GENERATION, CONTINUATION = "multiple choice", "generation", "continuation"
ALL, TELLING = "all tasks", "all tasks that say something"
KINDS = {"choice": CHOICE, "generation": GENERATION, "continuation": CONTINUATION}
# The k of pass@k, of those that there are answers for.
PASS_AT = (1, 5, 10, 100)


@dataclass(frozen=True)
class TaskComparison:
    """A model and the dense one on a task.

    Attributes:
        task: the task.
        capability: what it measures.
        kind: `choice`, `generation`, `continuation` or `likelihood`.
        metric: the metric.
        items: how many items both have.
        chance: the score of guessing.
        dense: the dense model's score.
        model: the model's.
        difference: model - dense, with the interval of a paired bootstrap.
        recovery: model / dense; dense / model where a lower score is better.
        corrected: (model - chance) / (dense - chance); None where the chance is unknown or is a perplexity's.
        lost: items that the dense model has right and the model wrong; None where items are not right or wrong.
        gained: items that only the model has right.
        p_value: one-sided, that the model is no worse: exact McNemar; sign flips where items are not right or wrong.
        p_holm: adjusted for all tasks; None for a task where the dense model is at chance, which is not tested.
        detectable: the smallest loss that would be found with 80 % power, in units of the score, at 5 % divided by the
            number of tested tasks (the first step of Holm's method).
        mark: why the task says nothing; empty otherwise.
        loops: the shares of answers that end in a loop, `{dense, model}`; None for given answers.
        pass_at: by k, pass@k `{dense, model}`, where several answers were generated for each item.
    """

    task: str
    capability: str | None
    kind: str | None
    metric: str
    items: int
    chance: float | None
    dense: Estimate
    model: Estimate
    difference: Estimate
    recovery: Estimate
    corrected: Estimate | None
    lost: int | None
    gained: int | None
    p_value: float
    p_holm: float | None
    detectable: float
    mark: str
    loops: dict[str, float] | None
    pass_at: dict[int, dict[str, float]]

    @property
    def is_worse(self) -> bool:
        """Whether the model is significantly worse, at 5 % over all tasks together."""
        return self.p_holm is not None and self.p_holm <= LEVEL


@dataclass(frozen=True)
class GroupComparison:
    """A model and the dense one over a group of tasks, which all weigh the same.

    Attributes:
        tasks: the group's tasks.
        recovery: the mean score and its recovery.
        lost: of all items that are right or wrong, those that the dense model has right and the model wrong.
        gained: those that only the model has right.
        items: how many items are right or wrong.
        p_value: exact one-sided McNemar over these items; None if there are none.
        detectable: the smallest loss over these items that would be found at 5 %; it is one test.
    """

    tasks: list[str]
    recovery: Recovery
    lost: int
    gained: int
    items: int
    p_value: float | None
    detectable: float | None


@dataclass(frozen=True)
class Comparison:
    """A model beside the dense one.

    Attributes:
        model: its name.
        tasks: each task.
        groups: by name: `all tasks`, whatever they say; and without those that say nothing
            `all tasks that say something` (if there are others), `multiple choice`, `generation` and `continuation`.
    """

    model: str
    tasks: list[TaskComparison]
    groups: dict[str, GroupComparison] = field(default_factory=dict)

    @property
    def marks(self) -> dict[str, str]:
        """The tasks that say nothing, with the reason."""
        return {task.task: task.mark for task in self.tasks if task.mark}

    @property
    def tested(self) -> list[TaskComparison]:
        """The tasks that are tested."""
        return [task for task in self.tasks if task.p_holm is not None]

    @property
    def worse(self) -> list[TaskComparison]:
        """The tasks on which the model is significantly worse."""
        return [task for task in self.tasks if task.is_worse]


@dataclass(frozen=True)
class _Test:
    """A task's p-value, the one adjusted for all tasks, and the level at which one loss among them is found."""

    p_value: float
    p_holm: float | None
    level: float


def compare_models(  # noqa: PLR0913
    model: Scores,
    dense: Scores,
    pruned: Scores | None = None,
    *,
    name: str = "the model",
    marks: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare a model with the dense one.

    Args:
        model: its scores, on the dense model's tasks and items (`align`).
        dense: the dense model's scores.
        pruned: the unrecovered model's, for the share of the gap that is closed.
        name: the model's name.
        marks: the tasks that say nothing, as `silent_tasks` returns; by default of these models.
        seed: of resampling.
    """
    others = {"model": model} | ({"pruned": pruned} if pruned else {})
    known = silent_tasks(dense, others) if marks is None else marks
    tested = [task for task in dense if known.get(task) != AT_CHANCE]
    p_values = {task: _p_value(model[task], dense[task], seed) for task in dense}
    adjusted = dict(zip(tested, holm([p_values[task] for task in tested]), strict=True))
    tests = {task: _Test(p_values[task], adjusted.get(task), first_level(len(tested))) for task in dense}
    tasks = [_compare_task(model[task], dense[task], tests[task], known.get(task, ""), seed) for task in dense]
    groups = {
        group: _compare_group(members, model, dense, pruned, seed)
        for group, members in task_groups(dense, known).items()
    }
    return Comparison(name, tasks, groups)


def task_groups(dense: Scores, marks: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the groups of tasks whose mean is taken, without empty ones; likelihoods are in none."""
    every = [task for task, score in dense.items() if score.kind != "likelihood"]
    telling = [task for task in every if task not in marks]
    groups = {ALL: every, TELLING: telling if telling != every else []}
    groups |= {title: [task for task in telling if dense[task].kind == kind] for kind, title in KINDS.items()}
    return {name: tasks for name, tasks in groups.items() if tasks}


def _losses(model: TaskScore, dense: TaskScore) -> np.ndarray:
    """Return how much worse the model is on each item, weighted."""
    losses = np.asarray(dense.items) - np.asarray(model.items)
    weights = np.ones(len(losses)) if dense.weights is None else np.asarray(dense.weights) / np.mean(dense.weights)
    return losses * weights if dense.higher_is_better else -losses * weights


def _is_right_or_wrong(model: TaskScore, dense: TaskScore) -> bool:
    return is_binary(model) and is_binary(dense) and dense.higher_is_better


def _p_value(model: TaskScore, dense: TaskScore, seed: int) -> float:
    if not _is_right_or_wrong(model, dense):
        return sign_flips(_losses(model, dense), seed)
    changed = flipped(model, dense)
    return mcnemar(len(changed["lost"]), len(changed["gained"]))


def _compare_task(model: TaskScore, dense: TaskScore, test: _Test, mark: str, seed: int) -> TaskComparison:
    changed = flipped(model, dense) if _is_right_or_wrong(model, dense) else None
    means, dense_means = resampled_scores([model, dense], seed).T
    difference = estimate(means - dense_means)
    share = ratio(means, dense_means) if dense.higher_is_better else ratio(dense_means, means)
    has_chance = dense.chance is not None and dense.higher_is_better
    loops = {"dense": _mean(dense.loops), "model": _mean(model.loops)} if dense.loops and model.loops else None
    return TaskComparison(
        task=dense.task,
        capability=dense.capability,
        kind=dense.kind,
        metric=dense.metric,
        items=len(dense.items),
        chance=dense.chance,
        dense=estimate(dense_means),
        model=estimate(means),
        difference=difference,
        recovery=estimate(share),
        corrected=estimate(ratio(means - dense.chance, dense_means - dense.chance)) if has_chance else None,
        lost=len(changed["lost"]) if changed else None,
        gained=len(changed["gained"]) if changed else None,
        p_value=test.p_value,
        p_holm=test.p_holm,
        detectable=(
            detectable_loss(len(dense.items), len(changed["lost"]) + len(changed["gained"]), test.level)
            if changed
            else detectable_mean_loss(difference.stderr, test.level)
        ),
        mark=mark,
        loops=loops,
        pass_at=_pass_at(model, dense),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _compare_group(
    tasks: Sequence[str], model: Scores, dense: Scores, pruned: Scores | None, seed: int
) -> GroupComparison:
    chosen = [{task: scores[task] for task in tasks} if scores else None for scores in (model, dense, pruned)]
    binary = [task for task in tasks if _is_right_or_wrong(model[task], dense[task])]
    changed = [flipped(model[task], dense[task]) for task in binary]
    lost, gained = (sum(len(one[direction]) for one in changed) for direction in ("lost", "gained"))
    items = sum(len(dense[task].items) for task in binary)
    return GroupComparison(
        tasks=list(tasks),
        recovery=recovery(*chosen, seed=seed),
        lost=lost,
        gained=gained,
        items=items,
        p_value=mcnemar(lost, gained) if items else None,
        detectable=detectable_loss(items, lost + gained) if items else None,
    )


def _pass_at(model: TaskScore, dense: TaskScore) -> dict[int, dict[str, float]]:
    repeats = min(model.repeats, dense.repeats)
    if repeats < 2 or not all(_counts_right_answers(score) for score in (model, dense)):
        return {}
    ks = sorted({k for k in (*PASS_AT, repeats) if k <= repeats})
    return {k: {"dense": pass_at_k(dense, k), "model": pass_at_k(model, k)} for k in ks}


def _counts_right_answers(score: TaskScore) -> bool:
    counts = np.asarray(score.items) * score.repeats
    return bool(np.allclose(counts, np.round(counts), atol=1e-6))


def pass_at_k(score: TaskScore, k: int) -> float:
    """Return the chance that one of k answers is right: 1 - C(n - c, k) / C(n, k), without bias.

    Of n answers c are right (2107.03374, section 2.1).

    Args:
        score: each item is the share of right ones among its `repeats` answers.
        k: at most `repeats`.
    """
    n = score.repeats
    right = [round(item * n) for item in score.items]
    return _mean([1 - math.comb(n - c, k) / math.comb(n, k) for c in right])
