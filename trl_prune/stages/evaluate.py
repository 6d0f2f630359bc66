"""evaluate: lm-eval's tasks on the dense, the pruned and the recovered models."""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel

from trl_prune.checkpoints import write_json
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.store import AnswerStore, answer_key
from trl_prune.data.generation.transformers_engine import generate_batch
from trl_prune.data.tokenizer_checks import check_padding
from trl_prune.evaluation.harness import drawn_doc_ids, evaluate_model, write_results
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import RESULTS
from trl_prune.recipe import Recipe
from trl_prune.reporting.console import show_recovery
from trl_prune.reporting.plots.evaluation import RECOVERY, SIZE_AND_SPEED, TASK_SCORES
from trl_prune.reporting.plots.sweep import SCORE_BY_ROWS
from trl_prune.reporting.progress import ItemBar
from trl_prune.reporting.tables import (
    COMPARISON_TABLE,
    FIDELITY_TABLE,
    FLIPS,
    FORGETTING_TABLE,
    OPEN_ANSWERS,
    RECOVERY_TABLE,
    SCORE_TABLE,
    SIZE_TABLE,
)
from trl_prune.runs.artifacts import StageOutput, config_hash
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import (
    CACHE,
    HELD_OUT_TEXT,
    check_code,
    check_held_out,
    check_template,
    check_thinking,
    compare_with_dense,
    evaluated_model,
    evaluation_settings,
    held_out_values,
    model_key,
    read_scores,
    stored,
)
from trl_prune.runs.fidelity import FIDELITY, check_fidelity, fidelity_metrics, fidelity_values
from trl_prune.runs.speed import SPEED, compare_with_dense_speed
from trl_prune.runs.stage import Stage


ANSWERS, FORGETTING = "answers.json", "forgetting.json"
MAX_ANSWER_TOKENS = 64
Load = Callable[[], PreTrainedModel]


def execute(run: Run, part: str, folder: Path) -> StageOutput:
    """Evaluate a model, asking it only what it was never asked before, in this run or an interrupted one."""
    start = time.perf_counter()
    load = functools.cache(lambda: run.load(part))
    files = evaluate_tasks_of(run, part, folder, load)
    write_json(folder / ANSWERS, answer_questions(run, part, folder, load))
    metrics = {task: _summary(score) for task, score in read_scores(folder).items()}
    outputs = {"results": RESULTS, "answers": ANSWERS} | {name.removesuffix(".jsonl"): name for name in files}
    if run.recipe.evaluate.held_out is not None:
        metrics[HELD_OUT_TEXT] = held_out_metrics(run, part, folder, load)
        write_json(folder / FORGETTING, metrics[HELD_OUT_TEXT])
        outputs["forgetting"] = FORGETTING
    if run.recipe.evaluate.fidelity is not None and part != "dense":
        metrics[FIDELITY] = fidelity_metrics(run, part, folder, load, functools.partial(ItemBar, part))
        outputs[FIDELITY] = f"{FIDELITY}/{RESULTS}"
    timing = {"seconds": time.perf_counter() - start}
    if part == "pruned":
        timing["speed"] = compare_with_dense_speed(run, load, folder)
    # A likelihood is rounded differently in another batch, and an interrupted evaluation goes on with other batches.
    return StageOutput(outputs, metrics, timing, volatile=frozenset(name.removesuffix(".jsonl") for name in files))


def evaluate_tasks_of(run: Run, part: str, folder: Path, load: Load) -> list[str]:
    """Evaluate a model on the recipe's tasks, write lm-eval's files and return the names of those with samples."""
    settings, model = evaluation_settings(run), evaluated_model(run, part, load, folder)
    total = sum(len(drawn_doc_ids(task, settings.limit, settings.seed)) for task in run.tasks.tasks.values())
    with ItemBar(part, total) as bar:
        results = evaluate_model(model, run.tasks, settings, bar)
    return write_results(folder, results, model, settings, run.dtype)


def _summary(score: TaskScore) -> dict:
    return {"metric": score.metric, "mean": score.mean, "stderr": score.stderr}


def held_out_metrics(run: Run, part: str, folder: Path, load: Load) -> dict[str, float]:
    """Return a model's comparison with the dense one."""
    values = held_out_values(run, part)
    return stored(folder, "held_out", values, lambda: asdict(compare_with_dense(run, part, load())))


def answer_questions(run: Run, part: str, folder: Path, load: Load) -> dict[str, str]:
    """Return a model's answers to the recipe's open questions; it is asked those that it was never asked before."""
    prompts = {question: _prompt(run, question) for question in run.recipe.evaluate.questions}
    sampling, fingerprint = Sampling(max_new_tokens=MAX_ANSWER_TOKENS), config_hash(model_key(run, part))
    keys = {question: answer_key(prompt, sampling, fingerprint) for question, prompt in prompts.items()}
    store = AnswerStore(folder / CACHE / "questions")
    answers = store.read(keys.values())
    missing = [question for question, key in keys.items() if key not in answers]
    if missing:
        new = generate_batch(load(), run.tokenizer, [prompts[question].ids for question in missing], sampling)
        store.write({keys[question]: answer for question, answer in zip(missing, new, strict=True)})
        answers = store.read(keys.values())
    return {question: answers[key].text.strip() for question, key in keys.items()}


def _prompt(run: Run, question: str) -> Prompt:
    messages, kwargs = [{"role": "user", "content": question}], run.recipe.chat_template_kwargs
    return Prompt(prompt_ids(run.tokenizer, messages, chat_template_kwargs=kwargs), messages)


def parts(recipe: Recipe) -> list[str]:
    """Return the models to evaluate: none without tasks."""
    return recipe.evaluated if recipe.evaluate.tasks else []


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make the models to evaluate."""
    return list(dict.fromkeys(recipe.stage_of(name) for name in recipe.evaluated if name != "dense"))


def inputs(run: Run, part: str) -> dict[str, str]:
    """Return the fingerprints of the model and the tasks' items, and where there are held-out texts, of both sides."""
    hashes = {"model": run.model_hash(part), "tasks": run.tasks_hash}
    section = run.recipe.evaluate
    if section.held_out is not None:
        hashes |= {"held_out": run.fingerprint(section.held_out), "dense": run.dense_fingerprint}
    if section.fidelity is not None and part != "dense":
        hashes["fidelity"] = config_hash(fidelity_values(run))
    return hashes


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


def describe(run: Run, part: str) -> str:
    """Return the tasks and how they are evaluated, and whether two models are in memory at once to be timed."""
    section = run.recipe.evaluate
    items = f"{section.limit} items per task" if section.limit else "all items"
    held_out = "" if section.held_out is None else f"; KL to the dense model on {section.held_out.path}"
    template = "on" if run.apply_chat_template else "off"
    timed = "; timed beside the dense model" if part == "pruned" and section.speed_seconds else ""
    return f"{', '.join(section.tasks)}; {items}; chat template {template}{held_out}{timed}"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe names tasks."""
    return bool(recipe.evaluate.tasks)


def check(run: Run) -> None:
    """Check the settings, that every task exists, its data can be loaded and its code may run, and held-out texts."""
    evaluation_settings(run)  # which says what is wrong
    check_padding(run.tokenizer, "evaluate")
    check_template(run)
    check_code(run)
    check_thinking(run)
    check_held_out(run)
    check_fidelity(run)


STAGE = Stage(
    "evaluate",
    inputs,
    settings,
    execute,
    describe,
    parts,
    needs,
    is_configured,
    check=check,
    keeps=(CACHE, SPEED),
    panels=(
        RECOVERY_TABLE,
        RECOVERY,
        SCORE_BY_ROWS,
        TASK_SCORES,
        SCORE_TABLE,
        COMPARISON_TABLE,
        FLIPS,
        FORGETTING_TABLE,
        FIDELITY_TABLE,
        SIZE_AND_SPEED,
        SIZE_TABLE,
        OPEN_ANSWERS,
    ),
    show=show_recovery,
)
