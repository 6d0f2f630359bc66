"""Models held against the dense model's own answers, with the lm-eval tasks `fidelity_*`."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel

from trl_prune.data.formats import Row, check_has_template, prompt_and_answer
from trl_prune.data.teacher import context_length
from trl_prune.errors import InputError
from trl_prune.evaluation.fidelity import write_fidelity
from trl_prune.evaluation.harness import evaluate_model, load_tasks, write_results
from trl_prune.evaluation.harness.evaluating import Progress
from trl_prune.evaluation.result_files import read_results
from trl_prune.runs.artifacts import config_hash
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import CACHE, evaluated_model, evaluation_settings, model_key


# The task group, the folder of its results in a model's folder, and its key among the model's metrics.
FIDELITY = "fidelity"
# lm-eval's context of a model whose config names none.
LM_EVAL_CONTEXT = 2048


def check_fidelity(run: Run) -> None:
    """Check that the section's rows have prompts.

    Raises:
        InputError: they do not, or there are none.
    """
    section = run.recipe.evaluate.fidelity
    if section is None:
        return
    source = f"evaluate.fidelity.dataset {section.dataset.path!r}"
    rows = run.rows(section.dataset)
    if not any(prompt_and_answer(row) for row in rows):
        raise InputError(f"{source} has no row with a prompt and an answer of text, so nothing to ask the models")
    check_has_template(rows, run.tokenizer, source)
    if not _drawn(run):
        raise InputError(
            f"{source} has no prompt of at most {_longest_prompt(run):,} tokens, which leaves room for an answer of "
            f"evaluate.fidelity.max_new_tokens: {section.max_new_tokens:,}"
        )


def fidelity_values(run: Run) -> list:
    """Return what determines the dense model's answers."""
    section = run.recipe.evaluate.fidelity
    asked = [run.fingerprint(section.dataset), section.rows, section.max_new_tokens, run.recipe.seed]
    return [*model_key(run, "dense"), *asked, run.recipe.template_settings]


def fidelity_file(run: Run) -> Path:
    """Return the file of the dense model's answers, which is written by the first model that needs it.

    It lies in the dense model's folder among what stays there when the recipe changes.
    """
    folder = run.folder.stage_dir("evaluate", "dense") / CACHE
    name = f"{FIDELITY}-{config_hash(fidelity_values(run))}"
    path, part = folder / f"{name}.jsonl", folder / f"{name}.part.jsonl"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(run, part)
        part.replace(path)
    return path


def _write(run: Run, path: Path) -> None:
    section = run.recipe.evaluate.fidelity
    rows = _drawn(run)
    write_fidelity(
        run.load("dense"),
        run.tokenizer,
        [_prompt(run, row) for row in rows],
        path,
        max_new_tokens=section.max_new_tokens,
        seed=run.recipe.seed,
        batch_size=run.recipe.evaluate.batch_size,
        references=[None if row.get("answer") is None else str(row["answer"]) for row in rows],
    )


def _drawn(run: Run) -> list[Row]:
    """Return rows drawn at random of those with a prompt that leaves room for the answer, in the dataset's order."""
    section = run.recipe.evaluate.fidelity
    rows = run.rows(section.dataset)
    order = random.Random(run.recipe.seed).sample(range(len(rows)), len(rows))
    fitting = (index for index in order if _is_askable(run, rows[index]))
    return [rows[index] for index in sorted(islice(fitting, section.rows))]


def _is_askable(run: Run, row: Row) -> bool:
    if not prompt_and_answer(row):
        return False
    prompt = _prompt(run, row)
    return bool(prompt.strip()) and len(run.tokenizer(prompt)["input_ids"]) <= _longest_prompt(run)


def _longest_prompt(run: Run) -> int:
    """Return the most tokens of a prompt that leave room for an answer."""
    return (context_length(run.config) or LM_EVAL_CONTEXT) - run.recipe.evaluate.fidelity.max_new_tokens


def _prompt(run: Run, row: Row) -> str:
    messages, _ = prompt_and_answer(row)
    if run.tokenizer.chat_template is None:
        return "\n".join(message["content"] for message in messages)
    kwargs = run.recipe.chat_template_kwargs
    return run.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)


def fidelity_metrics(
    run: Run, part: str, folder: Path, load: Callable[[], PreTrainedModel], progress: Callable[[int], Progress]
) -> dict:
    """Hold a model against the dense model's answers; lm-eval's files are written into a folder of their own.

    Args:
        run: the run.
        part: the model's name.
        folder: its folder of the stage.
        load: loads it.
        progress: returns what is told of the progress, for a number of items.

    Returns:
        `sampled_kl`, the estimate of KL(dense || model) in nats per token, and `agreement`, the share of the dense
        model's greedy answers that are the model's, each with `mean` and `stderr`; `answer_flips`, the share of the
        dense model's right answers that the model loses, None where no right answer is known; `greedy_written`, the
        number of greedy answers, and `greedy_usable`, of those that read back as their own tokens. Where none does,
        agreement cannot be measured and is None.
    """
    file = fidelity_file(run)
    counts = _greedy_counts(file)
    names = [FIDELITY if counts["greedy_usable"] else "fidelity_sampled"]
    tasks = load_tasks(names, metadata={"fidelity_file": str(file)})
    settings = replace(evaluation_settings(run), limit=None, apply_chat_template=False)
    model = evaluated_model(run, part, load, folder)
    results = evaluate_model(
        model, tasks, settings, progress(sum(len(task.eval_docs) for task in tasks.tasks.values()))
    )
    (folder / FIDELITY).mkdir(exist_ok=True)
    write_results(folder / FIDELITY, results, model, settings, run.dtype)
    scores = {score.metric: score for score in read_results(folder / FIDELITY).scores.values()}
    found = {name: {"mean": score.mean, "stderr": score.stderr} for name, score in scores.items()}
    greedy = results["results"].get("fidelity_greedy", {})
    return {"agreement": None} | found | {"answer_flips": greedy.get("answer_flips,none")} | counts


def _greedy_counts(file: Path) -> dict[str, int]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {"greedy_written": len(rows), "greedy_usable": sum(row["greedy_is_own"] for row in rows)}
