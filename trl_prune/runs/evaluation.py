"""How the recipe evaluates every model, with lm-eval and on held-out texts."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import fingerprint, write_json
from trl_prune.data.batches import calibration_batches
from trl_prune.data.rendering import rendered
from trl_prune.data.teacher import within_context
from trl_prune.data.tokenizer_checks import QUESTION
from trl_prune.errors import InputError
from trl_prune.evaluation.forgetting import Forgetting, measure_forgetting
from trl_prune.evaluation.harness import (
    Answers,
    EvaluatedModel,
    EvaluationSettings,
    EvaluationTasks,
    check_unsafe,
    evaluate_tasks,
    tasks_by_likelihood,
    think_end_token,
)
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import read_results
from trl_prune.recipe import EvaluateSection
from trl_prune.runs.artifacts import config_hash
from trl_prune.runs.context import Run, applies_chat_template
from trl_prune.runs.unseen_texts import check_unseen


# The key of the comparison on held-out texts among a model's metrics, which have a key for each task.
HELD_OUT_TEXT = "held-out text"
# Settings that are left out of a stage's hash while they are unset.
OPTIONAL_KEYS = ("chat_template_kwargs", "think_end_token", "confirm_run_unsafe_code")
# Tokens of a held-out text that are read, where the model's context is not shorter.
MAX_TOKENS = 1024
# The folder in a model's folder with all that it was ever asked, which stays when the recipe changes.
CACHE = "cache"


def evaluation_settings(run: Run) -> EvaluationSettings:
    """Return the settings that all models are evaluated with."""
    return section_settings(run.recipe.evaluate, run.tokenizer, run.recipe.seed, run.recipe.chat_template_kwargs)


def section_settings(
    section: EvaluateSection, tokenizer: PreTrainedTokenizerBase, seed: int, chat_template_kwargs: dict[str, object]
) -> EvaluationSettings:
    """Return the settings of an `evaluate` section; where no chat template is applied, its variables mean nothing.

    Raises:
        InputError: a chat template is asked for, and there is none.
    """
    with_template = applies_chat_template(section.apply_chat_template, tokenizer)
    if with_template and tokenizer.chat_template is None:
        raise InputError(
            f"evaluate.apply_chat_template is true, and the tokenizer of {tokenizer.name_or_path} has no chat "
            "template; set it to auto or false"
        )
    return EvaluationSettings(
        section.batch_size,
        with_template,
        section.limit,
        seed,
        chat_template_kwargs=chat_template_kwargs if with_template else {},
        think_end_token=think_end_token(tokenizer) if with_template else None,
        confirm_run_unsafe_code=section.confirm_run_unsafe_code,
    )


def evaluation_values(run: Run) -> dict:
    """Return these settings for a stage's hash, without what is unset, so that results of older versions match."""
    values = vars(evaluation_settings(run))
    return {name: value for name, value in values.items() if value or name not in OPTIONAL_KEYS}


def model_key(run: Run, name: str) -> list[str]:
    """Return what determines a model's answers to a prompt: its checkpoint, its dtype, and the dense tokenizer."""
    return [fingerprint(run.model_dir(name)), run.dtype, run.dense_fingerprint]


def evaluated_model(run: Run, name: str, load: Callable[[], PreTrainedModel], folder: Path) -> EvaluatedModel:
    """Return a model for the harness, with the answers that it has given before.

    They are kept by what was asked, so tasks, limits and templates may change. The batch size does not count, though
    it changes the rounding of a likelihood, as does which other requests are still to be answered.

    Args:
        run: the run.
        name: the model's.
        load: loads it.
        folder: the model's folder of the stage.
    """
    key = config_hash(
        [*model_key(run, name), evaluation_settings(run).think_end_token, importlib.metadata.version("lm_eval")]
    )
    return EvaluatedModel(name, load, run.tokenizer, Answers(folder / CACHE / f"requests-{key}.jsonl"))


def stored(folder: Path, name: str, determined_by: object, measure: Callable[[], dict]) -> dict:
    """Return what was measured of a model before, or measure and store it.

    Args:
        folder: the model's folder of the stage.
        name: what is measured.
        determined_by: all that the result depends on.
        measure: returns the result as JSON-like values.
    """
    path = folder / CACHE / f"{name}-{config_hash(determined_by)}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measure())
    return json.loads(path.read_text())


def mean_score(run: Run, model: PreTrainedModel, tasks: EvaluationTasks) -> float:
    """Return a model's mean score over tasks, each task weighted equally; a perplexity counts against it.

    Raises:
        InputError: a higher score is better on one task and worse on another, so that their mean says nothing.
    """
    scores = list(evaluate_tasks(model, run.tokenizer, tasks, evaluation_settings(run)).values())
    by_direction = {score.higher_is_better: score for score in scores}
    if len(by_direction) > 1:
        up, down = (f"{by_direction[is_up].task!r} ({by_direction[is_up].metric})" for is_up in (True, False))
        raise InputError(
            f"prune.by or search.score names tasks whose mean says nothing: a higher score is better on {up} and "
            f"worse on {down}; name tasks that are scored alike"
        )
    return sum(score.mean if score.higher_is_better else -score.mean for score in scores) / len(scores)


def read_scores(folder: Path) -> dict[str, TaskScore]:
    """Return a model's scores by task, from the files that the evaluate stage wrote into its folder."""
    return read_results(folder).scores


def held_out_values(run: Run, name: str) -> list:
    """Return what determines the comparison of a model with the dense one on the held-out texts."""
    held_out = run.recipe.evaluate.held_out
    return [*model_key(run, name), run.fingerprint(held_out), held_out_length(run), run.recipe.template_settings]


def held_out_length(run: Run) -> int:
    """Return how many tokens of a held-out text are read."""
    return within_context(MAX_TOKENS, run.config)


def compare_with_dense(run: Run, name: str, model: PreTrainedModel) -> Forgetting:
    """Compare a model of the recipe with the dense one on the held-out texts."""
    section = run.recipe.evaluate
    rows = run.rows(section.held_out)
    batches = calibration_batches(rows, run.tokenizer, section.batch_size, held_out_length(run))
    return measure_forgetting(model, model if name == "dense" else run.load("dense"), batches)


def check_template(run: Run) -> None:
    """Check that the chat template that prompts go through takes a question.

    Raises:
        InputError: it does not.
    """
    if run.apply_chat_template:
        rendered(run.tokenizer, QUESTION, variables=run.recipe.chat_template_kwargs, add_generation_prompt=True)


def check_thinking(run: Run) -> None:
    """Check that models that think before an answer are not asked for the likelihood of answers without thoughts.

    Raises:
        InputError: they are.
    """
    thinks = run.recipe.chat_template_kwargs.get("enable_thinking") and run.apply_chat_template
    by_likelihood = tasks_by_likelihood(run.tasks) if thinks else []
    if by_likelihood:
        raise InputError(
            f"chat_template_kwargs.enable_thinking is true, and the task {by_likelihood[0]!r} scores given answers, "
            "which no thoughts precede; name tasks that generate, or set evaluate.apply_chat_template to false"
        )


def check_code(run: Run) -> None:
    """Check that no task runs code that a model writes without the user's word.

    Raises:
        InputError: one does.
    """
    tasks = run.tasks  # its errors name the key already
    try:
        check_unsafe(tasks, evaluation_settings(run))
    except InputError as error:
        raise InputError(f"evaluate.tasks: {error}") from error


def check_held_out(run: Run) -> None:
    """Check that held-out texts can be read and are none of those that arms train on.

    Raises:
        InputError: they are, or cannot be read.
    """
    held_out = run.recipe.evaluate.held_out
    if held_out is not None:
        check_unseen(run, "evaluate.held_out", held_out)
