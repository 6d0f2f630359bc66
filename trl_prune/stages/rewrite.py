"""rewrite: the dense model writes the training answers (self-data distillation's data step, 2410.09982)."""

import sys
import time
from pathlib import Path

from datasets import Dataset

from trl_prune.checkpoints import atomic_file, load_config
from trl_prune.data.generation import Sampling
from trl_prune.data.rewriting.acceptance import acceptance_by_capability
from trl_prune.data.rewriting.rewrite import check_answer_types, generate_answers, rewrite_rows, rewriting_requests
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.reporting.plots.rewriting import ACCEPTANCE
from trl_prune.reporting.tables import REWRITTEN_ANSWERS
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import share_main, single_process_share, write_in_processes
from trl_prune.runs.stage import Stage


ROWS, BATCHES = "rows.jsonl", "batches"


def sampling(run: Run) -> Sampling:
    """Return the recipe's generation settings."""
    section = run.recipe.rewrite
    return Sampling(section.max_new_tokens, section.batch_size, section.temperature, run.recipe.seed)


def teacher(run: Run) -> LazyTeacher:
    """Return the model that writes the answers."""
    return LazyTeacher(run.load_teacher, run.tokenizer, run.teacher_fingerprint)


def write_share(run: Run, folder: Path, share: ProcessShare) -> None:
    """Generate one process's share of the batches."""
    generate_answers(rewriting_requests(run.dataset), teacher(run), sampling(run), folder / BATCHES, share)


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Rewrite the training rows, reusing the batches that an interrupted attempt wrote."""
    start = time.perf_counter()
    write_in_processes(run, __name__, folder)
    share = single_process_share("rewrite", "batch")
    rows = rewrite_rows(run.dataset, teacher(run), sampling(run), folder / BATCHES, share)
    _write_rows(rows, folder / ROWS)
    metrics = {"acceptance": acceptance_by_capability(list(rows))}
    return StageOutput({"rows": ROWS}, metrics, {"seconds": time.perf_counter() - start})


def _write_rows(rows: Dataset, path: Path) -> None:
    with atomic_file(path) as part:
        rows.to_json(part, force_ascii=False)


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model and the training rows."""
    return {"dense": run.teacher_fingerprint, "dataset": run.dataset_fingerprint}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the answers."""
    return {"rewrite": run.recipe.rewrite.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return how many answers will be written."""
    return f"{len(run.dataset)} answers of up to {run.recipe.rewrite.max_new_tokens} tokens by the dense model"


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe has a `rewrite` section."""
    return recipe.rewrite is not None


def check(run: Run) -> None:
    """Check that the recipe rewrites, and that the training rows have answers to rewrite."""
    if run.recipe.rewrite is None:
        raise InputError("the recipe has no `rewrite` section")
    if run.dataset_format == "text":
        raise InputError(
            f"dataset {run.recipe.dataset.path!r} is plain text, without answers to rewrite; leave out `rewrite`, "
            "or use rows with prompt + completion or messages"
        )
    check_answer_types(run.dataset)
    load_config(run.teacher_dir)


STAGE = Stage(
    "rewrite",
    inputs,
    settings,
    execute,
    describe,
    is_configured=is_configured,
    check=check,
    panels=(ACCEPTANCE, REWRITTEN_ANSWERS),
)

if __name__ == "__main__":
    sys.exit(share_main("rewrite", write_share))
