"""The door to lm-eval: find tasks, run one on one model, keep a score per item."""

import difflib
import functools
import hashlib
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.errors import InputError, first_line
from trl_prune.evaluation.recovery import TaskScore


if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# The metric that stands for a task which names none, first found first.
METRICS = ("acc_norm", "acc", "exact_match")
# Where a task reports several extractions of one answer, the strictest counts (as on the OpenLLM leaderboard v1).
FILTERS = ("strict-match", "none")


# Kept of each prompt for reports; few-shot prompts of large tasks would fill the disk.
QUESTION_CHARACTERS = 400


@dataclass(frozen=True)
class Harness:
    """lm-eval's tasks as one run of ours uses them.

    Attributes:
        manager: lm-eval's task manager.
        children: for each requested task or group, the tasks or groups one level down (a task is its own child).
        tasks: for each child, its leaf tasks.
    """

    manager: "TaskManager"
    children: dict[str, list[str]]
    tasks: dict[str, dict[str, "Task"]]

    @property
    def units(self) -> list[str]:
        """What is scored and weighed as one: the children of what was asked for."""
        return [child for children in self.children.values() for child in children]


@dataclass(frozen=True)
class EvaluationSettings:
    """How every model is asked, the same for all of them.

    Attributes:
        batch_size: requests scored together.
        apply_chat_template: whether prompts go through the tokenizer's chat template.
        items: how many items of each leaf task, drawn with the seed; None for all.
        seed: for that draw.
    """

    batch_size: int = 16
    apply_chat_template: bool = False
    items: int | None = None
    seed: int = 0


def shipped_tasks() -> Path:
    """Return the folder of the tasks that come with trl-prune, for `lm_eval --include_path`."""
    return Path(str(files("lm_eval_tasks")))


def find_tasks(names: list[str], include_path: list[str]) -> Harness:
    """Return the harness for tasks and groups by name: ours, the user's folders', or lm-eval's own.

    Raises:
        InputError: an unknown name, or a task whose data cannot be had.
    """
    _quiet()
    manager = _manager(names, [str(shipped_tasks()), *include_path])
    children: dict[str, list[str]] = {}
    tasks: dict[str, dict[str, Task]] = {}
    for name in names:
        loaded = _load(manager, name)
        children[name] = loaded.get("group_map", {}).get(name) or list(loaded["tasks"])
        for child in children[name]:
            tasks[child] = (
                {child: loaded["tasks"][child]} if child in loaded["tasks"] else _load(manager, child)["tasks"]
            )
    for leaves in tasks.values():
        for task in leaves.values():
            metric_of(task)
    return Harness(manager, children, tasks)


def _quiet() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _manager(names: list[str], include: list[str]) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    # lm-eval's own index takes 25 s to read, so it is read only for a name, or a group's member, that is not here.
    own = TaskManager(include_path=include, include_defaults=False)
    if all(_is_complete(own, name) for name in names):
        return own
    full = _with_defaults(tuple(include))
    for name in names:
        if name not in full.all_tasks:
            close = difflib.get_close_matches(name, full.all_tasks, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"evaluate.tasks names {name!r}, which is no task of lm-eval or of trl-prune{hint}")
    return full


@functools.lru_cache(maxsize=1)
def _with_defaults(include: tuple[str, ...]) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(include))


def _is_complete(manager: "TaskManager", name: str) -> bool:
    if name not in manager.all_tasks:
        return False
    entry = manager.task_index[name]
    members = (entry.cfg or {}).get("task") if name in manager.all_groups else None
    return all(_name_of(member) in manager.all_tasks for member in members or [])


def _name_of(member: str | dict) -> str:
    return member if isinstance(member, str) else str(member.get("task") or member.get("group"))


def _load(manager: "TaskManager", name: str) -> dict:
    try:
        return manager.load([name])
    except Exception as error:  # whatever a task's own code and its data loader may raise
        raise InputError(f"the data of task {name!r} cannot be had: {first_line(error)}") from error


def evaluate_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    harness: Harness,
    unit: str,
    settings: EvaluationSettings,
) -> tuple[TaskScore, list[dict]]:
    """Run one task (or a group as one) on a model in memory.

    Returns:
        The score with its items, and per item `{doc_id, score, question, answer}`; `answer` is the generated text.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    _quiet()
    leaves = harness.tasks[unit]
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size, device=str(model.device))
    told = lm_eval.simple_evaluate(
        model=lm,
        tasks=[unit],
        task_manager=harness.manager,
        samples=_drawn(leaves, settings),
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=settings.apply_chat_template,
    )
    metric = metric_of(next(iter(leaves.values())))
    items = [item for name in leaves for item in _items(told["samples"][name], metric)]
    return _score(unit, metric, leaves, items), items


def _drawn(leaves: Mapping[str, "Task"], settings: EvaluationSettings) -> dict[str, list[int]] | None:
    # lm-eval's own `limit` takes the first items, which are rarely a fair sample.
    if settings.items is None:
        return None
    drawn = {}
    for name, task in leaves.items():
        count = len(task.eval_docs)
        drawn[name] = sorted(random.Random(settings.seed).sample(range(count), min(settings.items, count)))
    return drawn


def _items(samples: list[dict], metric: str) -> list[dict]:
    names = {sample["filter"] for sample in samples}
    chosen = next((name for name in FILTERS if name in names), sorted(names)[0])
    kept = [sample for sample in samples if sample["filter"] == chosen]
    return [
        {
            "doc_id": sample["doc_id"],
            "score": float(sample[metric]),
            "choices": len(sample["arguments"]),
            "question": str(sample["arguments"][0][0])[-QUESTION_CHARACTERS:],
            "answer": str(sample["resps"][0][0]) if isinstance(sample["resps"][0][0], str) else None,
        }
        for sample in kept
    ]


def metric_of(task: "Task") -> str:
    """Return the metric that stands for a task: its metadata's, or the first of `METRICS` it has.

    Raises:
        InputError: it has none that gives each item a score.
    """
    known = list(task.aggregation())
    wanted = (task.config.metadata or {}).get("metric")
    metric = wanted or next((name for name in METRICS if name in known), None)
    if metric not in known:
        raise InputError(
            f"task {task.config.task!r} has the metrics {', '.join(known)}; wanted: one of {', '.join(METRICS)}, "
            "or one named as metadata.metric"
        )
    return metric


def _score(unit: str, metric: str, leaves: Mapping[str, "Task"], items: list[dict]) -> TaskScore:
    task = next(iter(leaves.values()))
    metadata = task.config.metadata or {}
    return TaskScore(
        task=unit,
        metric=metric,
        items=[item["score"] for item in items],
        chance=metadata.get("chance", _chance(task.config.output_type, items)),
        capability=metadata.get("capability"),
        trained=metadata.get("trained"),
    )


def content_hash(harness: Harness) -> str:
    """Return a hash of what the tasks ask: every item's prompt, choices and target, and how it is answered."""
    digest = hashlib.sha256()
    for unit in harness.units:
        for name, task in harness.tasks[unit].items():
            config = task.config
            told = [name, metric_of(task), config.output_type, config.num_fewshot, config.description]
            digest.update(repr([*told, config.generation_kwargs]).encode())
            for doc in task.eval_docs:
                digest.update(repr([task.doc_to_text(doc), task.doc_to_target(doc)]).encode())
    return digest.hexdigest()[:16]


def _chance(output_type: str, items: list[dict]) -> float | None:
    if output_type == "generate_until":
        return 0.0
    if output_type == "multiple_choice":
        return sum(1 / item["choices"] for item in items) / len(items)
    return None
