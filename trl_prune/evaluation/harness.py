"""The only module that imports lm-eval: load tasks, evaluate a model on one, return a score per item."""

import functools
import hashlib
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.errors import InputError, closest, first_line
from trl_prune.evaluation.recovery import TaskScore


if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# The metrics of a task whose metadata names none, in order of preference.
METRICS = ("acc_norm", "acc", "exact_match")
# Of a task with several filters of one answer, the strictest counts (as on the OpenLLM leaderboard v1).
FILTERS = ("strict-match", "none")
# The tag of Qwen3, DeepSeek-R1 and others; `data.rewriting.thoughts` repeats it, for neither imports the other.
THINK_END = "</think>"
# How much of each prompt's end is kept for reports; few-shot prompts of large tasks would fill the disk.
QUESTION_CHARACTERS = 400


@dataclass(frozen=True)
class EvaluationTasks:
    """The lm-eval tasks of one evaluation.

    A requested group is replaced by its members, each a task or a subgroup that is scored as one.

    Attributes:
        task_manager: lm-eval's task manager.
        subtasks: for each scored task or subgroup, its lm-eval tasks by name; a task is its own only subtask.
    """

    task_manager: "TaskManager"
    subtasks: dict[str, dict[str, "Task"]]

    @property
    def names(self) -> list[str]:
        """The scored tasks and subgroups, which all weigh the same."""
        return list(self.subtasks)


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation, the same for all models.

    Attributes:
        batch_size: requests per batch.
        apply_chat_template: whether prompts go through the tokenizer's chat template.
        limit: how many items of each subtask are drawn, with the seed; None for all.
        seed: of that draw.
        chat_template_kwargs: variables of the chat template.
        think_end_token: id or text that ends a reasoning model's thoughts, which are cut from generated answers; None
            cuts nothing.
    """

    batch_size: int = 16
    apply_chat_template: bool = False
    limit: int | None = None
    seed: int = 0
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    think_end_token: int | str | None = None


def shipped_tasks_dir() -> Path:
    """Return the folder of the tasks that come with trl-prune, for `lm_eval --include_path`."""
    return Path(str(files("lm_eval_tasks")))


def load_tasks(names: list[str], include_path: list[str]) -> EvaluationTasks:
    """Return tasks and groups by name, from trl-prune's folder, the user's folders or lm-eval.

    Raises:
        InputError: an unknown name, a task whose data cannot be loaded, or one without a metric per item.
    """
    _silence_lm_eval()
    task_manager = _task_manager(names, [str(shipped_tasks_dir()), *include_path])
    subtasks: dict[str, dict[str, Task]] = {}
    for name in names:
        loaded = _load(task_manager, name)
        for member in loaded.get("group_map", {}).get(name) or loaded["tasks"]:
            is_task = member in loaded["tasks"]
            subtasks[member] = {member: loaded["tasks"][member]} if is_task else _load(task_manager, member)["tasks"]
    for tasks in subtasks.values():
        for task in tasks.values():
            main_metric(task)
    return EvaluationTasks(task_manager, subtasks)


def tasks_by_likelihood(tasks: EvaluationTasks) -> list[str]:
    """Return the names of the tasks that score given answers by their likelihood instead of generating."""
    return [
        name
        for subtasks in tasks.subtasks.values()
        for name, task in subtasks.items()
        if task.config.output_type != "generate_until"
    ]


def think_end_token(tokenizer: PreTrainedTokenizerBase) -> int | str | None:
    """Return what ends the thoughts of a tokenizer's model: the closing tag's id, or its text where it has no id.

    A model whose chat template does not know the tag has no thoughts.
    """
    if THINK_END not in str(tokenizer.chat_template or ""):
        return None
    return tokenizer.get_vocab().get(THINK_END, THINK_END)


def _silence_lm_eval() -> None:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _task_manager(names: list[str], include_path: list[str]) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    # lm-eval's own index takes 25 s to read, so it is read only if a name, or a group's member, is not in the folders.
    without_defaults = TaskManager(include_path=include_path, include_defaults=False)
    if all(_is_complete(without_defaults, name) for name in names):
        return without_defaults
    with_defaults = _task_manager_with_defaults(tuple(include_path))
    for name in names:
        if name not in with_defaults.all_tasks:
            close = closest(name, with_defaults.all_tasks)
            hint = f"; did you mean {close!r}?" if close else ""
            raise InputError(f"{name!r} is not a task of lm-eval or of trl-prune{hint}")
    return with_defaults


@functools.lru_cache(maxsize=1)
def _task_manager_with_defaults(include_path: tuple[str, ...]) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(include_path))


def _is_complete(task_manager: "TaskManager", name: str) -> bool:
    """Return whether the task manager knows a task, or a group and all its members."""
    if name not in task_manager.all_tasks:
        return False
    entry = task_manager.task_index[name]
    members = (entry.cfg or {}).get("task") if name in task_manager.all_groups else None
    return all(_member_name(member) in task_manager.all_tasks for member in members or [])


def _member_name(member: str | dict) -> str:
    return member if isinstance(member, str) else str(member.get("task") or member.get("group"))


def _load(task_manager: "TaskManager", name: str) -> dict:
    try:
        return task_manager.load([name])
    except Exception as error:  # whatever a task's own code or its data loader raises
        raise InputError(f"the data of task {name!r} cannot be loaded: {first_line(error)}") from error


def evaluate_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: EvaluationTasks,
    name: str,
    settings: EvaluationSettings,
) -> tuple[TaskScore, list[dict]]:
    """Evaluate a model in memory on one task, or on one subgroup scored as a task.

    Returns:
        The score, and per item `{doc_id, score, choices, question, answer}`; `answer` is the generated text.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    _silence_lm_eval()
    subtasks = tasks.subtasks[name]
    lm = HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        device=str(model.device),
        chat_template_args=settings.chat_template_kwargs,
        think_end_token=settings.think_end_token,
    )
    with _without_environment_info():
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[name],
            task_manager=tasks.task_manager,
            samples=_drawn_doc_ids(subtasks, settings),
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=settings.apply_chat_template,
        )
    metric = main_metric(next(iter(subtasks.values())))
    items = [item for subtask in subtasks for item in _items(results["samples"][subtask], metric)]
    return _task_score(name, metric, subtasks, items), items


@contextmanager
def _without_environment_info() -> Iterator[None]:
    """Leave out lm-eval's description of the machine: it runs `pip list` and others for it, two seconds per call."""
    from lm_eval import evaluator

    add_env_info = evaluator.add_env_info
    evaluator.add_env_info = lambda _: None
    try:
        yield
    finally:
        evaluator.add_env_info = add_env_info


def _drawn_doc_ids(subtasks: Mapping[str, "Task"], settings: EvaluationSettings) -> dict[str, list[int]] | None:
    # lm-eval's own `limit` takes the first items, which are rarely a fair sample.
    if settings.limit is None:
        return None
    doc_ids = {}
    for name, task in subtasks.items():
        count = len(task.eval_docs)
        doc_ids[name] = sorted(random.Random(settings.seed).sample(range(count), min(settings.limit, count)))
    return doc_ids


def _items(samples: list[dict], metric: str) -> list[dict]:
    names = {sample["filter"] for sample in samples}
    strictest = next((name for name in FILTERS if name in names), sorted(names)[0])
    return [
        {
            "doc_id": sample["doc_id"],
            "score": float(sample[metric]),
            "choices": len(sample["arguments"]),
            "question": str(sample["arguments"][0][0])[-QUESTION_CHARACTERS:],
            "answer": str(sample["resps"][0][0]) if isinstance(sample["resps"][0][0], str) else None,
        }
        for sample in samples
        if sample["filter"] == strictest
    ]


def main_metric(task: "Task") -> str:
    """Return the metric that a task is scored by: its metadata's, or the first of `METRICS` it has.

    Raises:
        InputError: it has none that gives each item a score.
    """
    available = list(task.aggregation())
    preferred = (task.config.metadata or {}).get("metric")
    metric = preferred or next((name for name in METRICS if name in available), None)
    if metric not in available:
        raise InputError(
            f"task {task.config.task!r} has the metrics {', '.join(available)}; wanted: one of {', '.join(METRICS)}, "
            "or one named as metadata.metric"
        )
    return metric


def _task_score(name: str, metric: str, subtasks: Mapping[str, "Task"], items: list[dict]) -> TaskScore:
    task = next(iter(subtasks.values()))
    metadata = task.config.metadata or {}
    return TaskScore(
        task=name,
        metric=metric,
        items=[item["score"] for item in items],
        chance=metadata.get("chance", _chance(task.config.output_type, items)),
        capability=metadata.get("capability"),
        trained=metadata.get("trained"),
    )


def _chance(output_type: str, items: list[dict]) -> float | None:
    if output_type == "generate_until":
        return 0.0
    if output_type == "multiple_choice":
        return sum(1 / item["choices"] for item in items) / len(items)
    return None


def content_hash(tasks: EvaluationTasks) -> str:
    """Return a hash of the tasks' content: metric, few-shot and generation settings, and every prompt and target."""
    digest = hashlib.sha256()
    for subtasks in tasks.subtasks.values():
        for name, task in subtasks.items():
            config = task.config
            settings = [name, main_metric(task), config.output_type, config.num_fewshot, config.description]
            digest.update(repr([*settings, config.generation_kwargs]).encode())
            for doc in task.eval_docs:
                digest.update(repr([task.doc_to_text(doc), task.doc_to_target(doc)]).encode())
    return digest.hexdigest()[:16]
