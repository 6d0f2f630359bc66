"""evaluate: lm-eval's tasks on the dense, the pruned and the recovered models."""

import time
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.data.generation import Sampling, generate_batch, prompt_ids
from trl_prune.evaluation.efficiency import measure_speed
from trl_prune.evaluation.harness import evaluate_task
from trl_prune.recipe import Recipe
from trl_prune.reporting.console import show_recovery
from trl_prune.reporting.plots.evaluation import RECOVERY, SIZE_AND_SPEED, TASK_SCORES
from trl_prune.reporting.plots.sweep import SCORE_BY_ROWS
from trl_prune.reporting.tables import OPEN_ANSWERS, RECOVERY_TABLE, SCORE_TABLE, SIZE_TABLE
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import evaluation_settings, read_scores, scores_file
from trl_prune.runs.stage import Stage


ANSWERS = "answers.json"
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
    # Arms have the pruned model's shape, and so its speed.
    speed = vars(measure_speed(model)) if part in ("dense", "pruned") else None
    scores = read_scores(folder, tasks.names)
    metrics = {
        task: {"metric": score.metric, "mean": score.mean, "stderr": score.stderr} for task, score in scores.items()
    }
    outputs = {task: scores_file(task) for task in tasks.names} | {"answers": ANSWERS}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start, "tokens_per_second": speed})


def answer_questions(run: Run, model: PreTrainedModel) -> dict[str, str]:
    """Return a model's answers to the recipe's open questions."""
    questions = run.recipe.evaluate.questions
    prompts = [prompt_ids(run.tokenizer, [{"role": "user", "content": question}]) for question in questions]
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
    """Return the fingerprints of the model and the tasks' items."""
    return {"model": run.model_hash(part), "tasks": run.tasks_hash}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the scores."""
    return {
        "evaluate": run.recipe.evaluate.model_dump(mode="json", exclude={"models"}),
        "apply_chat_template": run.apply_chat_template,
        "seed": run.recipe.seed,
        "dtype": run.dtype,
    }


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return the tasks and how they are evaluated."""
    section = run.recipe.evaluate
    items = f"{section.limit} items per task" if section.limit else "all items"
    return f"{', '.join(section.tasks)}; {items}; chat template {'on' if run.apply_chat_template else 'off'}"


def check(run: Run) -> None:
    """Check that every task exists and its data can be loaded."""
    run.tasks  # noqa: B018


STAGE = Stage(
    "evaluate",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    check=check,
    panels=(
        RECOVERY_TABLE,
        RECOVERY,
        SCORE_BY_ROWS,
        TASK_SCORES,
        SCORE_TABLE,
        SIZE_AND_SPEED,
        SIZE_TABLE,
        OPEN_ANSWERS,
    ),
    show=show_recovery,
)
