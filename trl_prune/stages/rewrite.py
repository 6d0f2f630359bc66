"""rewrite: the dense model writes the training answers (self-data distillation's data step, 2410.09982)."""

import json
import sys
import time
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.checkpoints import atomic_file
from trl_prune.data.generation.engines import check_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.rewriting.provenance import RECORDS, acceptance_summary, write_records
from trl_prune.data.rewriting.rewrite import RewriteSettings, all_requests, generate_share, rewrite_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.reporting.plots.rewriting import ACCEPTANCE
from trl_prune.reporting.tables import REWRITTEN_ANSWERS
from trl_prune.runs import rewriting
from trl_prune.runs.artifacts import StageOutput, config_hash
from trl_prune.runs.context import Run
from trl_prune.runs.generation import ANSWERS, answer_generator
from trl_prune.runs.selected_rows import count_to_rewrite, indices_to_rewrite, rows_to_rewrite
from trl_prune.runs.sharing import share_main, single_process_share, write_in_processes
from trl_prune.runs.stage import Stage


ROWS = "rows.jsonl"
# Arguments of a server engine that do not determine its answers.
CONNECTION = ("url", "concurrency", "timeout_s", "retries", "api_key_env")


def rewrite_settings(run: Run) -> RewriteSettings:
    """Return the recipe's settings of rewriting."""
    recipe = run.recipe
    length, variables = run.teacher.max_model_len, recipe.chat_template_kwargs
    return rewriting.rewrite_settings(recipe.rewrite, recipe.seed, length, recipe.dataset.path, variables)


def _generator(run: Run, folder: Path, share: ProcessShare) -> AnswerGenerator:
    section = run.recipe.rewrite
    return answer_generator(run, section.engine, section.engine_kwargs, folder, share)


def write_share(run: Run, folder: Path, share: ProcessShare) -> None:
    """Generate one process's share of the answers."""
    generate_share(rows_to_rewrite(run), _generator(run, folder, share), rewrite_settings(run))


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Rewrite the training rows, reusing every answer that an earlier or interrupted attempt stored."""
    start = time.perf_counter()
    write_in_processes(run, __name__, folder)
    generator = _generator(run, folder, single_process_share("rewrite", "batch"))
    rows = rows_to_rewrite(run)
    result = rewrite_rows(rows, generator, rewrite_settings(run))
    _write_rows(result.rows, folder / ROWS)
    write_records(result.records, folder / RECORDS)
    # Of several samples of an answer, the last one that was judged.
    texts = [record.rewrite for record in result.records if record.rewrite]
    metrics = {
        "acceptance": acceptance_summary(result.records, rows),
        "generated_tokens": count_tokens(run.teacher.tokenizer, texts),
    }
    return StageOutput({"rows": ROWS, "provenance": RECORDS}, metrics, {"seconds": time.perf_counter() - start})


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    """Return the number of tokens of texts together."""
    return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0


def _write_rows(rows: Dataset, path: Path) -> None:
    # Not `to_json`, which writes columns of JSON as text, and numbers with ten digits.
    with atomic_file(path) as part, Path(part).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model, the training rows and which of them are rewritten."""
    hashes = {"dense": run.teacher_fingerprint, "dataset": run.dataset_fingerprint}
    return hashes if run.recipe.select is None else hashes | {"rows": config_hash(indices_to_rewrite(run))}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the answers."""
    section = run.recipe.rewrite.model_dump(mode="json")
    for name in CONNECTION:
        section["engine_kwargs"].pop(name, None)
    values = {"rewrite": section, "seed": run.recipe.seed, "dtype": run.dtype}
    return values | run.recipe.template_settings


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return how many answers will be written."""
    section = run.recipe.rewrite
    where = "" if section.engine == "transformers" else f" with {section.engine}"
    rows, tokens = count_to_rewrite(run), section.max_new_tokens
    return f"answers to {rows} rows, up to {tokens} tokens each, by the dense model{where}"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe has a `rewrite` section."""
    return recipe.rewrite is not None


def needs(recipe: Recipe) -> list[str]:
    """Return the stage that selects the rows, if the recipe has it."""
    return ["select"] * (recipe.select is not None)


def check(run: Run) -> None:
    """Check the section, the engine, and that the training rows have answers to rewrite."""
    section = run.recipe.rewrite
    if section is None:
        raise InputError("the recipe has no `rewrite` section")
    if run.dataset_format == "text" and section.response_template is None:
        raise InputError(
            f"dataset {run.recipe.dataset.path!r} is plain text, without answers to rewrite; set "
            "`rewrite.response_template` to what stands before the answers, give arms `data: text` and leave out "
            "`rewrite` (`recover: {recovered: {method: auto, data: text}}`), or use rows with prompt + completion or "
            "messages"
        )
    if run.dataset_format == "text" and section.train_prompts:
        raise InputError(
            "`rewrite.train_prompts` is for rows with prompt + completion or messages, not for plain text"
        )
    if not any(all_requests(run.dataset, rewrite_settings(run).asking)):
        raise InputError(f"dataset {run.recipe.dataset.path!r} has no row with an answer to rewrite")
    check_engine(section.engine, section.engine_kwargs, "rewrite.engine_kwargs")


STAGE = Stage(
    "rewrite",
    inputs,
    settings,
    execute,
    describe,
    needs=needs,
    is_configured=is_configured,
    check=check,
    keeps=(ANSWERS,),
    panels=(ACCEPTANCE, REWRITTEN_ANSWERS),
)

if __name__ == "__main__":
    sys.exit(share_main("rewrite", write_share))
