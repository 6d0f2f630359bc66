"""lm-eval's tasks: find them by name, load them once, and say what of them counts."""

import functools
import hashlib
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from trl_prune.errors import InputError, closest, first_line
from trl_prune.evaluation.task_metrics import choose_metric


if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# The tag of Qwen3, DeepSeek-R1 and others; `data.rewriting.thoughts` repeats it, for neither imports the other.
THINK_END = "</think>"
# Where an object that has no source lies in memory, in a task's config.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class EvaluationTasks:
    """The lm-eval tasks of one evaluation.

    A requested group is replaced by its members, each a task or a subgroup that is scored as one.

    Attributes:
        subtasks: for each scored task or subgroup, its lm-eval tasks by name; a task is its own only subtask.
        groups: the requested groups and all groups in them, by name.
    """

    subtasks: dict[str, dict[str, "Task"]]
    groups: dict[str, "Group"] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The scored tasks and subgroups, which all weigh the same."""
        return list(self.subtasks)

    @property
    def tasks(self) -> dict[str, "Task"]:
        """Every lm-eval task by name."""
        return {name: task for subtasks in self.subtasks.values() for name, task in subtasks.items()}


def shipped_tasks_dir() -> Path:
    """Return the folder of the tasks that come with trl-prune, for `lm_eval --include_path`."""
    return Path(str(files("lm_eval_tasks")))


def load_tasks(
    names: Sequence[str], include_path: Sequence[str] = (), metadata: dict[str, object] | None = None
) -> EvaluationTasks:
    """Return tasks and groups by name, from trl-prune's folder, the user's folders or lm-eval.

    Args:
        names: of tasks and groups.
        include_path: the user's folders.
        metadata: what tasks of custom datasets are given (lm-eval's `--metadata`).

    Raises:
        InputError: no name or an unknown one, a folder that does not exist, a task whose data cannot be loaded, or one
            without a metric per item.
    """
    _check_names(names, include_path)
    silence_lm_eval()
    folders = [shipped_tasks_dir(), *(Path(path).expanduser() for path in include_path)]
    task_manager = _task_manager(list(names), [str(folder) for folder in folders], metadata)
    found = EvaluationTasks({}, {})
    for name in names:
        loaded = _load(task_manager, name)
        found.groups.update(loaded["groups"])
        for member in loaded.get("group_map", {}).get(name) or loaded["tasks"]:
            own = {member: loaded["tasks"][member]} if member in loaded["tasks"] else None
            found.subtasks[member] = own or _load(task_manager, member)["tasks"]
    for task in found.tasks.values():
        _prepare(task)
    return found


def _check_names(names: Sequence[str], include_path: Sequence[str]) -> None:
    if not names:
        raise InputError("no task is named; name one at least, such as recovery_probes")
    for path in include_path:
        if not Path(path).expanduser().is_dir():
            raise InputError(f"include_path names {str(path)!r}, which is not a folder")


def _prepare(task: "Task") -> None:
    main_metric(task)
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)


def silence_lm_eval() -> None:
    """Keep lm-eval's notes about what it is doing off the terminal."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _task_manager(names: list[str], include_path: list[str], metadata: dict | None = None) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    # lm-eval's own index takes 25 s to read, so it is read only if a name, or a group's member, is not in the folders.
    without_defaults = TaskManager(include_path=include_path, include_defaults=False, metadata=metadata)
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


def main_metric(task: "Task") -> str:
    """Return the metric that a task is scored by (`task_metrics.choose_metric`).

    Raises:
        InputError: it has none that gives each item a score.
    """
    return choose_metric(task.config.task, task.config.metadata, list(task.aggregation()))


def tasks_by_likelihood(tasks: EvaluationTasks) -> list[str]:
    """Return the names of the tasks that score given answers by their likelihood instead of generating."""
    return [name for name, task in tasks.tasks.items() if task.config.output_type != "generate_until"]


def unsafe_tasks(tasks: EvaluationTasks) -> list[str]:
    """Return the names of the tasks that run code which the model writes."""
    return [name for name, task in tasks.tasks.items() if getattr(task, "UNSAFE_CODE", False)]


def think_end_token(tokenizer: PreTrainedTokenizerBase) -> int | str | None:
    """Return what ends the thoughts of a tokenizer's model: the closing tag's id, or its text where it has no id.

    A model whose chat template does not know the tag has no thoughts.
    """
    if THINK_END not in str(tokenizer.chat_template or ""):
        return None
    return tokenizer.get_vocab().get(THINK_END, THINK_END)


def drawn_doc_ids(task: "Task", limit: int | None, seed: int) -> list[int]:
    """Return the items of a task that are evaluated: all, or some drawn at random, in order.

    A larger limit adds items to those of a smaller one. lm-eval's own `limit` takes the first items, which are rarely
    a fair sample.
    """
    count = len(task.eval_docs)
    if limit is None:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), count)[:limit])


def content_hash(tasks: EvaluationTasks) -> str:
    """Return a hash of the tasks' content: their configs with the source of their functions, prompts and targets."""
    digest = hashlib.sha256()
    for task in tasks.tasks.values():
        digest.update(ADDRESS.sub("", repr([main_metric(task), task.dump_config()])).encode())
        for doc in task.eval_docs:
            digest.update(repr([task.doc_to_text(doc), task.doc_to_target(doc)]).encode())
    return digest.hexdigest()[:16]
