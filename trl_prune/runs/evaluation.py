"""How the recipe evaluates every model with lm-eval."""

import json
from pathlib import Path

from transformers import PreTrainedModel

from trl_prune.evaluation.harness import EvaluationSettings, EvaluationTasks, evaluate_task
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.runs.context import Run


def evaluation_settings(run: Run) -> EvaluationSettings:
    """Return the settings that all models are evaluated with."""
    section = run.recipe.evaluate
    return EvaluationSettings(section.batch_size, run.apply_chat_template, section.limit, run.recipe.seed)


def mean_score(run: Run, model: PreTrainedModel, tasks: EvaluationTasks) -> float:
    """Return a model's mean score over tasks, each task weighted equally."""
    settings = evaluation_settings(run)
    scores = [evaluate_task(model, run.tokenizer, tasks, name, settings)[0] for name in tasks.names]
    return sum(score.mean for score in scores) / len(scores)


def scores_file(task: str) -> str:
    """Return the name of the file with a task's score and items in a model's folder."""
    return f"{task}.json"


def read_scores(folder: Path, tasks: list[str]) -> dict[str, TaskScore]:
    """Return a model's scores by task, from the files that the evaluate stage wrote into its folder."""
    return {task: TaskScore(**json.loads((folder / scores_file(task)).read_text())["score"]) for task in tasks}
