"""The only package that imports lm-eval: load tasks, evaluate a model on them, write the results."""

from trl_prune.evaluation.harness.answers import Answers
from trl_prune.evaluation.harness.evaluating import check_unsafe, evaluate_model, evaluate_tasks
from trl_prune.evaluation.harness.settings import EvaluatedModel, EvaluationSettings
from trl_prune.evaluation.harness.tasks import (
    EvaluationTasks,
    content_hash,
    drawn_doc_ids,
    load_tasks,
    main_metric,
    shipped_tasks_dir,
    tasks_by_likelihood,
    think_end_token,
    unsafe_tasks,
)
from trl_prune.evaluation.harness.writing import write_results


__all__ = [
    "Answers",
    "EvaluatedModel",
    "EvaluationSettings",
    "EvaluationTasks",
    "check_unsafe",
    "content_hash",
    "drawn_doc_ids",
    "evaluate_model",
    "evaluate_tasks",
    "load_tasks",
    "main_metric",
    "shipped_tasks_dir",
    "tasks_by_likelihood",
    "think_end_token",
    "unsafe_tasks",
    "write_results",
]
