"""The recipe's lm-eval tasks, and how every model is evaluated on them."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from trl_prune.runs.artifacts import StageOutput
from trl_prune.checkpoints import write_json
from trl_prune.recipe import Recipe
from trl_prune.runs.context import Run
from trl_prune.data.generation import Sampling, generate_batch, prompt_ids
from trl_prune.evaluation.efficiency import measure_speed
from trl_prune.evaluation.harness import Harness, EvaluationSettings, content_hash, evaluate_task, find_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.runs.stage import Stage



def evaluation_settings(run: Run) -> EvaluationSettings:
    """Return how every model is asked."""
    section = run.recipe.evaluate
    return EvaluationSettings(section.batch_size, run.apply_chat_template, section.items, run.recipe.seed)


def harness_of(run: Run) -> Harness:
    """Return the recipe's tasks; found once a run, since lm-eval's index is slow to read."""
    if not hasattr(run, "_harness"):
        run._harness = find_tasks(run.recipe.evaluate.tasks, run.recipe.evaluate.include_path)
    return run._harness


def mean_score(run: Run, model: PreTrainedModel, harness: Harness) -> float:
    """Return a model's mean score over a harness's tasks, measured as the recipe says."""
    told = [evaluate_task(model, run.tokenizer, harness, unit, evaluation_settings(run))[0] for unit in harness.units]
    return sum(score.mean for score in told) / len(told)


def tasks_hash(run: Run) -> str:
    """Return the hash of what is asked; once a run, since it reads every item."""
    if not hasattr(run, "_tasks_hash"):
        run._tasks_hash = content_hash(harness_of(run))
    return run._tasks_hash
