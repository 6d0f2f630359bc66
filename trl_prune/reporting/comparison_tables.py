"""The cells of the tables that compare models with the dense one, for pages and the terminal alike."""

import math

from trl_prune.evaluation.comparison import ComparedModels, Comparison, GroupComparison, TaskComparison
from trl_prune.evaluation.recovery import Estimate


TASK_COLUMNS = (
    "task", "dense", "model", "difference", "lost, gained", "p (Holm)", "would be seen", "items", "chance", "note",
)  # fmt: skip
GROUP_COLUMNS = (
    "tasks", "number", "dense", "model", "recovery %", "above chance %", "gap closed %", "p", "would be seen",
)  # fmt: skip
LEGEND = (
    "The models have the same items. Scores are in per cent, differences in points, with 95 % intervals (paired "
    "bootstrap over items, without variation between seeds). Lost: items that the dense model has right and this one "
    "wrong; gained: the opposite. p: that the model is no worse (exact one-sided McNemar test; sign flips where "
    "items are not right or wrong), adjusted for all tasks by Holm's method; * at most 5 %. Would be seen: the "
    "smallest loss that this test finds in 80 % of evaluations with as many items, of a task at the level of Holm's "
    "first step (5 % / tasks). Recovery is the mean score over "
    "tasks, as a share of the dense model's; above chance, the score of guessing is subtracted from both. Loops: the "
    "share of answers that end in one, of the dense model and of this one."
)
# p-values below are not told apart.
SMALLEST_P = 0.001
# A share whose standard error is more than the whole says nothing: what it is a share of may as well be 0.
LARGEST_ERROR = 1.0


def task_cells(comparison: Comparison) -> list[list[str]]:
    """Return a row of `TASK_COLUMNS` for each task."""
    return [_task_row(task) for task in comparison.tasks]


def group_cells(comparison: Comparison) -> list[list[str]]:
    """Return a row of `GROUP_COLUMNS` for each group of tasks."""
    return [_group_row(name, group, comparison) for name, group in comparison.groups.items()]


def notes(compared: ComparedModels) -> list[str]:
    """Return what a reader must know of the results: other conditions, and tasks that say nothing."""
    marked = ", ".join(f"{task} ({reason})" for task, reason in compared.marks.items())
    left_out = [f"these tasks say nothing and are left out of means, but for those of all tasks: {marked}"]
    return compared.warnings + (left_out if marked else [])


def _task_row(task: TaskComparison) -> list[str]:
    is_share = task.kind != "likelihood"
    return [
        task.task,
        _number(task.dense.value, is_share),
        _number(task.model.value, is_share),
        _difference(task.difference, is_share),
        "" if task.lost is None else f"{task.lost}, {task.gained}",
        p_value(task.p_holm) + ("*" if task.is_worse else ""),
        _number(task.detectable, is_share),
        f"{task.items:,}",
        _number(task.chance, is_share) if task.chance is not None else "",
        "; ".join(([task.mark] if task.mark else []) + task_notes(task)),
    ]


def task_notes(task: TaskComparison) -> list[str]:
    """Return what else there is of a task: a perplexity as a ratio, answers that loop, pass@k."""
    found = []
    if task.metric in ("word_perplexity", "byte_perplexity", "perplexity"):
        found.append(f"{task.metric}, {1 / task.recovery.value:.3f}x the dense model's")
    if task.loops and any(task.loops.values()):
        found.append(f"loops: {_arrow(task.loops)}")
    return found + [f"pass@{k}: {_arrow(shares)}" for k, shares in task.pass_at.items()]


def _arrow(shares: dict[str, float]) -> str:
    return f"{100 * shares['dense']:.0f} → {100 * shares['model']:.0f} %"


def _group_row(name: str, group: GroupComparison, comparison: Comparison) -> list[str]:
    recovery = group.recovery
    dense = [task.dense.value for task in comparison.tasks if task.task in group.tasks]
    return [
        name,
        str(len(group.tasks)),
        _number(sum(dense) / len(dense), True),
        _number(recovery.score.value, True),
        *(_share(one) for one in (recovery.recovery, recovery.corrected, recovery.gap_closed)),
        p_value(group.p_value),
        _number(group.detectable, True) if group.detectable is not None else "",
    ]


def _number(value: float, is_share: bool) -> str:
    """Return a score: one between 0 and 1 in per cent, another as it is."""
    if math.isnan(value):
        return "none"
    return f"{100 * value:.1f}" if is_share else f"{value:.3f}"


def _difference(difference: Estimate, is_share: bool) -> str:
    factor, digits = (100, 1) if is_share else (1, 3)
    ends = (difference.value, difference.low, difference.high)
    value, low, high = (f"{factor * end:+.{digits}f}" if end is not None else "" for end in ends)
    return f"{value} [{low}, {high}]" if low else value


def says_something(share: Estimate | None) -> bool:
    """Return whether a share of the dense model's score, or of the gap, is known well enough to be shown."""
    return share is not None and math.isfinite(share.value) and not share.stderr > LARGEST_ERROR


def _share(share: Estimate | None) -> str:
    if not says_something(share):
        return ""
    interval = "" if share.low is None else f" [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return f"{100 * share.value:.1f}{interval}"


def p_value(value: float | None) -> str:
    """Return a p-value; empty where there was no test."""
    if value is None:
        return ""
    return f"<{SMALLEST_P}" if value < SMALLEST_P else f"{value:.3f}"
