"""rewrite: the dense model writes the training answers anew (self-data distillation's data step)."""

import time
from pathlib import Path

from datasets import Dataset

from trl_prune.checkpoints import atomic_file, load_config
from trl_prune.data.generation import Sampling
from trl_prune.data.rewriting.acceptance import acceptance
from trl_prune.data.rewriting.rewrite import check_answer_types, rewrite_rows, rewriting_requests, write_answers
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import run_shared, single_process_share
from trl_prune.runs.stage import Stage


ROWS = "rows.jsonl"
BATCHES = "batches"


def sampling(run: Run) -> Sampling:
    """Return how the recipe draws answers."""
    section = run.recipe.rewrite
    return Sampling(section.max_new_tokens, section.batch_size, section.temperature, run.recipe.seed)


def teacher(run: Run) -> LazyTeacher:
    """Return who writes."""
    return LazyTeacher(run.load_teacher, run.tokenizer, run.teacher_fingerprint)


def divide(run: Run, folder: Path, share: ProcessShare) -> None:
    """Generate one process's share of the batches."""
    write_answers(rewriting_requests(run.dataset), teacher(run), sampling(run), folder / BATCHES, share)


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Rewrite the training rows, leaving those batches an interrupted pass wrote."""
    start = time.perf_counter()
    run_shared(run, "rewrite", folder)
    rows = rewrite_rows(
        run.dataset, teacher(run), sampling(run), folder / BATCHES, single_process_share("rewrite", "batch")
    )
    _write_rows(rows, folder / ROWS)
    return StageOutput(
        {"rows": ROWS}, {"acceptance": acceptance(list(rows))}, {"seconds": time.perf_counter() - start}
    )


def _write_rows(rows: Dataset, path: Path) -> None:
    with atomic_file(path) as part:
        rows.to_json(part, force_ascii=False)


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model and the training rows."""
    return {"dense": run.teacher_fingerprint, "dataset": run.dataset_fingerprint}


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the answers."""
    return {"rewrite": run.recipe.rewrite.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say how many answers will be written."""
    return f"{len(run.dataset)} answers of up to {run.recipe.rewrite.max_new_tokens} tokens by the dense model"


def check(run: Run) -> None:
    """Check that the training rows have answers to rewrite."""
    if run.dataset_format == "text":
        raise InputError(
            f"dataset {run.recipe.dataset.path!r} is plain text, without answers to rewrite; leave out `rewrite`, "
            "or use rows with prompt + completion or messages"
        )
    check_answer_types(run.dataset)
    load_config(run.teacher_dir)


STAGE = Stage("rewrite", inputs, settings, work, plan, check=check)
