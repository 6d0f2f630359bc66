"""Stages whose files several processes write: each process writes its share, then this process reads them all."""

import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from trl_prune.checkpoints import write_json
from trl_prune.data.sharing import ProcessShare
from trl_prune.recipe import Recipe
from trl_prune.runs.context import Run
from trl_prune.trainers.launching import process_main, run_processes


JOB, RECIPE = "job", "recipe.json"
# Writes one process's share of a stage's files into the stage's folder. Each file is complete or absent, because
# processes of a killed command may still be writing.
WriteShare = Callable[[Run, Path, ProcessShare], None]


def write_in_processes(run: Run, module: str, folder: Path) -> None:
    """Start the processes that write a stage's files, if the run has several; else do nothing.

    Args:
        run: the run.
        module: the stage's module, which calls `share_main` when it is executed.
        folder: the stage's folder.

    Raises:
        InputError: a process found a mistake in the user's input.
        RuntimeError: the processes failed.
    """
    if run.launch is None:
        return
    job = folder / JOB
    job.mkdir(parents=True, exist_ok=True)
    write_json(job / RECIPE, run.recipe.model_dump(mode="json"))
    run_processes(run.launch, module, job)
    shutil.rmtree(job)


def share_main(stage: str, write_share: WriteShare) -> int:
    """Write this process's share of a stage's files, as `python -m MODULE JOB`, and return the exit code."""
    return process_main(partial(_write, stage, write_share))


def _write(stage: str, write_share: WriteShare, job: Path) -> None:
    process_index, num_processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    run = Run(Recipe.model_validate_json((job / RECIPE).read_text()))
    run.seed_everything()
    progress = _progress(f"{stage}, process 1 of {num_processes}", "part") if process_index == 0 else iter
    write_share(run, job.parent, ProcessShare(process_index, num_processes, progress=progress))


def single_process_share(title: str, unit: str) -> ProcessShare:
    """Return the share of a process that does everything, with a progress bar."""
    return ProcessShare(progress=_progress(title, unit))


def _progress(title: str, unit: str) -> Callable[[list], Iterable]:
    return lambda batches: tqdm(batches, desc=title, unit=unit)
