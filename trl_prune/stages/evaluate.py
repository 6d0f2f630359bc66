"""evaluate: the same questions to the dense, the pruned and the recovered models."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from trl_prune.checkpoints import write_json
from trl_prune.data.generation import Sampling, generate_batch, prompt_ids
from trl_prune.evaluation.efficiency import measure_speed
from trl_prune.evaluation.harness import evaluate_task
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.recipe import Recipe
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import evaluation_settings, harness_of, tasks_hash
from trl_prune.runs.stage import Stage


ANSWERS = "answers.json"


ANSWER_TOKENS = 64


def work(run: Run, unit: str, folder: Path) -> StageOutput:
    """Measure a model, leaving the tasks an interrupted pass wrote."""
    start = time.perf_counter()
    harness = harness_of(run)
    model = run.load(unit)
    for task in tqdm(harness.units, desc=f"evaluate {unit}", unit="task"):
        path = folder / f"{task}.json"
        if not path.is_file():
            score, items = evaluate_task(model, run.tokenizer, harness, task, evaluation_settings(run))
            write_json(path, {"score": asdict(score), "items": items})
    write_json(folder / ANSWERS, answers(run, model))
    # Arms have the pruned model's shape, and so its speed.
    speed = vars(measure_speed(model)) if unit in ("dense", "pruned") else None
    scores = read_scores(folder, harness.units)
    metrics = {
        task: {"metric": score.metric, "mean": score.mean, "stderr": score.stderr} for task, score in scores.items()
    }
    outputs = {task: f"{task}.json" for task in harness.units} | {"answers": ANSWERS}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start, "tokens_per_second": speed})


def answers(run: Run, model: object) -> dict[str, str]:
    """Return a model's answers to the recipe's open questions."""
    asked = run.recipe.evaluate.questions
    prompts = [prompt_ids(run.tokenizer, [{"role": "user", "content": question}]) for question in asked]
    told = generate_batch(model, run.tokenizer, prompts, Sampling(max_new_tokens=ANSWER_TOKENS)) if prompts else []
    return {question: answer.text.strip() for question, answer in zip(asked, told, strict=True)}


def read_scores(folder: Path, tasks: list[str]) -> dict[str, TaskScore]:
    """Return the scores a model's folder holds."""
    return {task: TaskScore(**json.loads((folder / f"{task}.json").read_text())["score"]) for task in tasks}


def units(recipe: Recipe) -> list[str]:
    """Return the models to measure."""
    return recipe.evaluated


def inputs(run: Run, unit: str) -> dict[str, str]:
    """Name the model."""
    return {"model": run.model_hash(unit), "tasks": tasks_hash(run)}


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the scores."""
    told = run.recipe.evaluate.model_dump(mode="json", exclude={"models"})
    return {
        "evaluate": told,
        "apply_chat_template": run.apply_chat_template,
        "seed": run.recipe.seed,
        "dtype": run.dtype,
    }


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say what will be asked."""
    section = run.recipe.evaluate
    items = f"{section.items} items a task" if section.items else "all items"
    return f"{', '.join(section.tasks)}; {items}; chat template {'on' if run.apply_chat_template else 'off'}"


def check(run: Run) -> None:
    """Check that every task is known and its data at hand."""
    harness_of(run)


STAGE = Stage("evaluate", inputs, settings, work, plan, units, check)
