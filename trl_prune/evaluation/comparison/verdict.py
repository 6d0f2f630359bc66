"""One sentence that says what a comparison found, and what it cannot tell."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from trl_prune.evaluation.comparison.models import (
    ALL,
    KINDS,
    TELLING,
    Comparison,
    TaskComparison,
)
from trl_prune.evaluation.comparison.paired_tests import LEVEL
from trl_prune.evaluation.comparison.silent_tasks import AT_CEILING, AT_CHANCE
from trl_prune.evaluation.recovery import Recovery
from trl_prune.evaluation.timing import Interval


# How many tasks are named.
NAMED_TASKS = 6
WHY_SILENT = {AT_CHANCE: "the dense model is at chance", AT_CEILING: "every model is at the ceiling"}


def verdict(comparison: Comparison, parameters: float | None = None, speed: Interval | None = None) -> str:
    """Return a model's size, speed and kept quality in one sentence, and where it is worse than the dense model.

    Args:
        comparison: of the model with the dense one.
        parameters: its parameters, as a share of the dense model's.
        speed: how many times as fast it decodes.
    """
    clauses = [
        *([f"has {100 * parameters:.0f} % of the parameters"] if parameters is not None else []),
        *([_speed(speed)] if speed is not None else []),
        *_kept(comparison),
        _significance(comparison),
    ]
    listed = ", ".join(clauses[:-1]) + ", and " + clauses[-1] if len(clauses) > 1 else clauses[0]
    return "; ".join([f"{comparison.model} {listed}", *_silent(comparison)]) + "."


def _speed(speed: Interval) -> str:
    if not speed.is_known:
        return f"decodes about {speed} as fast"
    if speed.low <= 1 <= speed.high:
        return f"decodes no faster or slower than can be told ({speed})"
    # The interval is of the repeats alone; other work on the machine may have moved all of them.
    busy = " (timed on a busy machine, so take it with care)" if speed.is_busy else ""
    return f"decodes {speed.value:.2f}x as fast {speed.spread}{busy}"


def _kept(comparison: Comparison) -> list[str]:
    names = [name for name in KINDS.values() if name in comparison.groups]
    kept = [_share_kept(comparison.groups[name].recovery, name) for name in names]
    return [f"keeps {' and '.join(kept)}"] if kept else []


def _share_kept(recovery: Recovery, name: str) -> str:
    share, corrected = recovery.recovery, recovery.corrected
    interval = "" if share.low is None else f" [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    has_chance = corrected is not None and f"{corrected.value:.2f}" != f"{share.value:.2f}"
    above_chance = f" ({100 * corrected.value:.0f} % of what is above chance)" if has_chance else ""
    return f"{100 * share.value:.0f} % of {name}{interval}{above_chance}"


def _significance(comparison: Comparison) -> str:
    tested, worse = comparison.tested, comparison.worse
    if not tested:
        return "cannot be judged: the dense model is at chance on every task"
    if worse:
        return (
            f"is significantly worse than the dense model on {len(worse)} of {len(tested)} tasks (Holm, 5 %): "
            f"{_named(worse)}"
        )
    group = comparison.groups.get(TELLING) or comparison.groups.get(ALL)
    if group is not None and group.p_value is not None and group.p_value <= LEVEL:
        return (
            f"is significantly worse than the dense model over all {group.items:,} items (p = {group.p_value:.2g}), "
            f"though on {_none_of(tested)} by itself (Holm, 5 %)"
        )
    return f"is significantly worse on {_none_of(tested)} (Holm, 5 %), where {_unseen(tested)}"


def _none_of(tested: Sequence[TaskComparison]) -> str:
    return f"none of the {len(tested)} tested tasks" if len(tested) > 1 else "no tested task"


def _silent(comparison: Comparison) -> list[str]:
    """Return how many tasks say nothing and why, and the kinds of tasks of which none says anything."""
    if not comparison.tested:
        return []
    total = len(comparison.tasks)
    counts = Counter(comparison.marks.values())
    said = [
        f"{count} of {total} tasks say{'s' if count == 1 else ''} nothing, as {WHY_SILENT[mark]}"
        for mark, count in counts.items()
    ]
    present = {KINDS[task.kind] for task in comparison.tasks if task.kind in KINDS}
    return said + [f"{kind} cannot be judged" for kind in KINDS.values() if kind in present - set(comparison.groups)]


def _named(tasks: Sequence[TaskComparison]) -> str:
    names = [task.capability or task.task for task in tasks]
    shown = names if len(set(names)) == len(names) else [task.task for task in tasks]
    rest = len(shown) - NAMED_TASKS
    return ", ".join(shown[:NAMED_TASKS]) + (f" and {rest} more" if rest > 0 else "")


def _unseen(tested: Sequence[TaskComparison]) -> str:
    """Return which losses the items could not have shown, of tasks whose items are right or wrong."""
    losses = [100 * task.detectable for task in tested if task.lost is not None]
    found = [loss for loss in losses if np.isfinite(loss)]
    if len(found) < len(losses) or not found:
        return "some have too few items to show any loss"
    low, high = min(found), max(found)
    points = f"{high:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
    return f"losses below {points} points would not be seen with so few items"
