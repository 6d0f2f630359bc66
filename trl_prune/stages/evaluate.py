"""evaluate: lm-eval's tasks on the dense, the pruned and the recovered models."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.transformers_engine import generate_batch
from trl_prune.evaluation.harness import evaluate_task
from trl_prune.recipe import Recipe
from trl_prune.reporting.console import show_recovery
from trl_prune.reporting.plots.evaluation import RECOVERY, SIZE_AND_SPEED, TASK_SCORES
from trl_prune.reporting.plots.sweep import SCORE_BY_ROWS
from trl_prune.reporting.tables import FORGETTING_TABLE, OPEN_ANSWERS, RECOVERY_TABLE, SCORE_TABLE, SIZE_TABLE
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import (
    HELD_OUT_TEXT,
    check_held_out,
    check_thinking,
    compare_with_dense,
    evaluation_settings,
    read_scores,
    scores_file,
)
from trl_prune.runs.speed import SPEED, compare_with_dense_speed
from trl_prune.runs.stage import Stage


ANSWERS, FORGETTING = "answers.json", "forgetting.json"
MAX_ANSWER_TOKENS = 64


def execute(run: Run, part: str, folder: Path) -> StageOutput:
    """Evaluate a model, reusing the tasks that an interrupted attempt finished."""
    start = time.perf_counter()
    tasks, model = run.tasks, run.load(part)
    for task in tqdm(tasks.names, desc=f"evaluate {part}", unit="task"):
        path = folder / scores_file(task)
        if not path.is_file():
            score, items = evaluate_task(model, run.tokenizer, tasks, task, evaluation_settings(run))
            write_json(path, {"score": asdict(score), "items": items})
    write_json(folder / ANSWERS, answer_questions(run, model))
    speed = compare_with_dense_speed(run, lambda: model, folder) if part == "pruned" else None
    scores = read_scores(folder, tasks.names)
    metrics = {
        task: {"metric": score.metric, "mean": score.mean, "stderr": score.stderr} for task, score in scores.items()
    }
    outputs = {task: scores_file(task) for task in tasks.names} | {"answers": ANSWERS}
    if run.recipe.evaluate.held_out is not None:
        metrics[HELD_OUT_TEXT] = held_out_metrics(run, part, folder, model)
        outputs["forgetting"] = FORGETTING
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start, "speed": speed})


def held_out_metrics(run: Run, part: str, folder: Path, model: PreTrainedModel) -> dict[str, float]:
    """Return a model's comparison with the dense one, or as an interrupted attempt left it."""
    path = folder / FORGETTING
    if not path.is_file():
        write_json(path, asdict(compare_with_dense(run, part, model)))
    return json.loads(path.read_text())


def answer_questions(run: Run, model: PreTrainedModel) -> dict[str, str]:
    """Return a model's answers to the recipe's open questions."""
    questions, kwargs = run.recipe.evaluate.questions, run.recipe.chat_template_kwargs
    messages = [[{"role": "user", "content": question}] for question in questions]
    prompts = [prompt_ids(run.tokenizer, conversation, chat_template_kwargs=kwargs) for conversation in messages]
    if not prompts:
        return {}
    answers = generate_batch(model, run.tokenizer, prompts, Sampling(max_new_tokens=MAX_ANSWER_TOKENS))
    return {question: answer.text.strip() for question, answer in zip(questions, answers, strict=True)}


def parts(recipe: Recipe) -> list[str]:
    """Return the models to evaluate."""
    return recipe.evaluated


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make the models to evaluate."""
    makers = {name: "prune" if name == "pruned" else "recover" for name in recipe.evaluated if name != "dense"}
    return list(dict.fromkeys(makers.values()))


def inputs(run: Run, part: str) -> dict[str, str]:
    """Return the fingerprints of the model and the tasks' items, and where there are held-out texts, of both sides."""
    hashes = {"model": run.model_hash(part), "tasks": run.tasks_hash}
    if run.recipe.evaluate.held_out is None:
        return hashes
    return hashes | {"held_out": run.fingerprint(run.recipe.evaluate.held_out), "dense": run.dense_fingerprint}


def settings(run: Run, part: str) -> dict:
    """Return the settings that determine the scores and answers."""
    values = {
        "evaluate": run.recipe.evaluate.model_dump(mode="json", exclude=_not_scored(part)),
        "apply_chat_template": run.apply_chat_template,
        "seed": run.recipe.seed,
        "dtype": run.dtype,
    }
    think_end = evaluation_settings(run).think_end_token
    return values | run.recipe.template_settings | ({} if think_end is None else {"think_end_token": think_end})


def _not_scored(part: str) -> set[str]:
    """Return the keys that a part's results do not depend on: only the pruned model is timed."""
    return {"models"} if part == "pruned" else {"models", "speed_seconds"}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return the tasks and how they are evaluated."""
    section = run.recipe.evaluate
    items = f"{section.limit} items per task" if section.limit else "all items"
    held_out = "" if section.held_out is None else f"; KL to the dense model on {section.held_out.path}"
    template = "on" if run.apply_chat_template else "off"
    return f"{', '.join(section.tasks)}; {items}; chat template {template}{held_out}"


def check(run: Run) -> None:
    """Check that every task exists and its data can be loaded, and the held-out texts."""
    run.tasks  # noqa: B018
    check_thinking(run)
    check_held_out(run)


STAGE = Stage(
    "evaluate",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    check=check,
    keeps=(SPEED,),
    panels=(
        RECOVERY_TABLE,
        RECOVERY,
        SCORE_BY_ROWS,
        TASK_SCORES,
        SCORE_TABLE,
        FORGETTING_TABLE,
        SIZE_AND_SPEED,
        SIZE_TABLE,
        OPEN_ANSWERS,
    ),
    show=show_recovery,
)
