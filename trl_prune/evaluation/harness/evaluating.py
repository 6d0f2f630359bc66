"""Evaluate a model on all tasks in one pass, with lm-eval's own aggregation."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.errors import InputError
from trl_prune.evaluation.harness.settings import EvaluatedModel, EvaluationSettings
from trl_prune.evaluation.harness.tasks import (
    EvaluationTasks,
    drawn_doc_ids,
    silence_lm_eval,
    unsafe_tasks,
)
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import task_scores


if TYPE_CHECKING:
    from lm_eval.api.task import Task

# Called with a task, and how many of its items have all their answers now, and whether no model was asked for them.
Progress = Callable[[str, int, bool], None]
# lm-eval's seeds of few-shot examples, of Python's and of numpy's generator, which tasks may use.
FEWSHOT_SEED, PYTHON_SEED, NUMPY_SEED = 1234, 0, 1234


def evaluate_model(
    model: EvaluatedModel, tasks: EvaluationTasks, settings: EvaluationSettings, progress: Progress | None = None
) -> dict:
    """Evaluate a model on all tasks, asking it only what it has not answered before.

    Args:
        model: the model.
        tasks: the tasks.
        settings: how they are evaluated.
        progress: is told how many items of a task are done, and whether their answers were stored before.

    Returns:
        lm-eval's results with `samples`, as `lm_eval.evaluate` returns them; standard errors are left out.

    Raises:
        InputError: the model gives NaN, or a task runs code that the model writes without the user's word.
    """
    import lm_eval

    from trl_prune.evaluation.harness.answering import AnsweringModel

    check_unsafe(tasks, settings)
    silence_lm_eval()
    doc_ids = {name: drawn_doc_ids(task, settings.limit, settings.seed) for name, task in tasks.tasks.items()}
    random.seed(PYTHON_SEED)
    np.random.seed(NUMPY_SEED)
    with ExitStack() as stack:
        stack.enter_context(_without_progress_bar())
        stack.callback(model.answers.close)
        for name, task in tasks.tasks.items():
            task.set_fewshot_seed(FEWSHOT_SEED)
            stack.enter_context(_examples_of_full_run(task, doc_ids[name]))
        return lm_eval.evaluate(
            lm=AnsweringModel(model, settings, progress),
            task_dict={"tasks": tasks.tasks, "groups": tasks.groups},
            samples=None if settings.limit is None else doc_ids,
            bootstrap_iters=0,
            apply_chat_template=settings.apply_chat_template,
            fewshot_as_multiturn=True,
            confirm_run_unsafe_code=settings.confirm_run_unsafe_code,
        )


def check_unsafe(tasks: EvaluationTasks, settings: EvaluationSettings) -> None:
    """Check that no task runs code that the model writes without the user's word.

    Raises:
        InputError: one does.
    """
    unsafe = unsafe_tasks(tasks)
    if unsafe and not settings.confirm_run_unsafe_code:
        raise InputError(
            f"task {unsafe[0]!r} runs code that the model writes on this machine; set confirm_run_unsafe_code to true "
            "if you want that"
        )


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Leave out lm-eval's bar for each task's prompts, which no argument turns off."""
    from lm_eval.api import task

    bar, task.tqdm = task.tqdm, lambda documents, **_: documents
    try:
        yield
    finally:
        task.tqdm = bar


@contextmanager
def _examples_of_full_run(task: "Task", doc_ids: Iterable[int]) -> Iterator[None]:
    """Give each drawn item the few-shot examples that it has in a run over all items.

    lm-eval draws examples item by item from one generator, so that an item's prompt would change with the limit.
    """
    sampler = getattr(task, "sampler", None)
    if sampler is None or not task.get_config("num_fewshot"):
        yield
        return
    draw, wanted, position = sampler.sample, iter(doc_ids), 0

    def sample(n: int, eval_doc: dict | None = None, **options: object) -> list[dict]:
        nonlocal position
        doc_id = next(wanted)
        for skipped in range(position, doc_id):
            draw(n, task.eval_docs[skipped] if eval_doc is not None else None)
        position = doc_id + 1
        return draw(n, eval_doc, **options)

    sampler.sample = sample
    try:
        yield
    finally:
        del sampler.sample


def evaluate_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: EvaluationTasks,
    settings: EvaluationSettings,
    name: str = "in memory",
) -> dict[str, TaskScore]:
    """Return the scores of a model in memory, by task or subgroup."""
    return task_scores(evaluate_model(EvaluatedModel(name, lambda: model, tokenizer), tasks, settings))
