"""Stages whose work several processes divide: each writes its share of files, and what is left is to read them."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from trl_prune.checkpoints import write_json, write_text
from trl_prune.recipe import Recipe
from trl_prune.runs.context import Run
from trl_prune.data.sharing import ProcessShare
from trl_prune.trainers.launching import process_main, run_processes


JOB, RECIPE, STAGE = "job", "recipe.json", "stage.txt"


def run_shared(run: Run, stage: str, folder: Path) -> None:
    """Have every process do its share of a stage where there are several; else do nothing.

    A stage that shares has a function `divide(run, folder, share)`, whose files are whole or absent: processes of a
    command that was killed may still write them beside this one's.

    Raises:
        InputError: what a process says about the user's input.
        RuntimeError: the processes failed.
    """
    if run.launch is None:
        return
    job = folder / JOB
    job.mkdir(parents=True, exist_ok=True)
    write_json(job / RECIPE, run.recipe.model_dump(mode="json"))
    write_text(job / STAGE, stage)
    run_processes(run.launch, "trl_prune.runs.sharing", job)
    shutil.rmtree(job)


def single_process_share(title: str, unit: str) -> ProcessShare:
    """Return the share of a process that has all the work, with a bar that shows it."""
    return ProcessShare(progress=_bar(title, unit))


def _bar(title: str, unit: str) -> Callable[[list], Iterable]:
    return lambda parts: tqdm(parts, desc=title, unit=unit)


def work(job: Path) -> None:
    """Do this process's share of a job; processes need not wait for each other, and the first shows its bar."""
    rank, processes = (int(os.environ.get(name, told)) for name, told in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    stage = importlib.import_module(f"trl_prune.stages.{(job / STAGE).read_text()}")
    run = Run(Recipe.model_validate_json((job / RECIPE).read_text()))
    run.seed_everything()
    bar = _bar(f"{stage.STAGE.name}, share of 1 in {processes}", "part") if rank == 0 else iter
    stage.divide(run, job.parent, ProcessShare(rank, processes, progress=bar))


if __name__ == "__main__":
    sys.exit(process_main(work))
