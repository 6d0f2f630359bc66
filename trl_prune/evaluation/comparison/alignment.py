"""Bring models' scores to the same items in the same order, by the hash of each document."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trl_prune.errors import InputError
from trl_prune.evaluation.recovery import Scores, TaskScore
from trl_prune.evaluation.result_files import unique_keys


def align(scores: Mapping[str, Scores]) -> tuple[dict[str, dict[str, TaskScore]], list[str]]:
    """Return models' scores on the tasks and items that all of them have, in the first model's order.

    Args:
        scores: by model and task. Scores without hashes of documents are from one run, in which all models have the
            same items in the same order.

    Returns:
        The scores, and a sentence for every task of which something is left out.

    Raises:
        InputError: no task is common to all, or a task has no common item or not the same metric.
    """
    first = next(iter(scores.values()))
    tasks = [task for task in first if all(task in by_task for by_task in scores.values())]
    if not tasks:
        names = "; ".join(f"{model}: {', '.join(by_task)}" for model, by_task in scores.items())
        raise InputError(f"the results have no task in common ({names})")
    notes = _tasks_left_out(scores, tasks)
    aligned: dict[str, dict[str, TaskScore]] = {model: {} for model in scores}
    for task in tasks:
        by_model, note = _align_task(task, {model: by_task[task] for model, by_task in scores.items()})
        notes += [note] if note else []
        for model, score in by_model.items():
            aligned[model][task] = score
    return aligned, notes


def _tasks_left_out(scores: Mapping[str, Scores], tasks: Sequence[str]) -> list[str]:
    found: dict[str, list[str]] = {}
    for model, by_task in scores.items():
        for task in by_task:
            found.setdefault(task, []).append(model)
    return [
        f"task {task!r} is left out: only {', '.join(models)} of the {len(scores)} results "
        f"{'has' if len(models) == 1 else 'have'} it"
        for task, models in found.items()
        if task not in tasks
    ]


def _align_task(task: str, scores: Mapping[str, TaskScore]) -> tuple[dict[str, TaskScore], str | None]:
    _check_metric(task, scores)
    positions = {model: _positions(score) for model, score in scores.items()}
    first, *others = positions.values()
    common = [key for key in first if all(key in other for other in others)]
    if not common:
        raise InputError(f"task {task!r} has no item that is in all results; they are of different data")
    total = len(set().union(*positions.values()))
    left_out = total - len(common)
    note = f"task {task!r}: {left_out:,} of {total:,} items are not in all results and are left out"
    chosen = {model: [by_key[key] for key in common] for model, by_key in positions.items()}
    return {model: _select(score, chosen[model]) for model, score in scores.items()}, note if left_out else None


def _check_metric(task: str, scores: Mapping[str, TaskScore]) -> None:
    metrics = {score.metric for score in scores.values()}
    hashed = {score.doc_hashes is not None for score in scores.values()}
    if len(metrics) > 1:
        each = ", ".join(f"{model}: {score.metric}" for model, score in scores.items())
        raise InputError(f"task {task!r} is scored by different metrics ({each})")
    if len(hashed) > 1 or (hashed == {False} and len({len(score.items) for score in scores.values()}) > 1):
        raise InputError(f"task {task!r} has no document hashes in some results, so that items cannot be matched")


def _positions(score: TaskScore) -> dict[str, int]:
    """Return the position of each item by its key; documents that come twice are numbered."""
    keys = score.doc_hashes or [str(position) for position in range(len(score.items))]
    return {key: position for position, key in enumerate(unique_keys(keys))}


def _select(score: TaskScore, positions: Sequence[int]) -> TaskScore:
    lists = {name: getattr(score, name) for name in ("items", "doc_hashes", "weights", "loops")}
    chosen = {name: [values[one] for one in positions] for name, values in lists.items() if values is not None}
    return replace(score, **chosen)
