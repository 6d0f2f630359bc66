"""search: which sizes fit the budget, and which of them recovers best."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path

from tqdm.auto import tqdm

from trl_prune.checkpoints import write_json
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import content_hash
from trl_prune.pruning.search import HalvingResult, pareto_front, successive_halving
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.reporting.plots.search import draw_search
from trl_prune.runs.arms import training_args
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run, dataset_fingerprint
from trl_prune.runs.evaluation import evaluation_settings
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.search_space import budget_of, fitting, halving_schedule_of, keep_of, ranking_of
from trl_prune.runs.stage import Stage
from trl_prune.runs.trials import Trials, task_harness
from trl_prune.trainers.arms.plan import check_arm


KEEP, TABLE, MEASURED, SCRATCH = "keep.json", "candidates.json", "measured.json", "candidates"
# Candidates that a dry run names one by one.
SHOWN = 24
# Where a stage's words begin in the printed plan.
INDENT = 26


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """HalvingResult the candidates, going on where an interrupted successive_halving stopped, and write the winner's plan."""
    start = time.perf_counter()
    found, survivors = fitting(run), halving_schedule_of(run)
    ledger = Ledger(folder / MEASURED)
    by_name = {one.name: one for one in found}
    with tqdm(total=len(found) + sum(survivors), initial=len(ledger), desc="search", unit="trial") as bar:
        trials = Trials(run, folder / SCRATCH, by_name, partial(keep_of, run), max(survivors, default=0), bar.update)
        told = successive_halving(list(by_name), survivors, trials.measure, ledger, trials.drop)
    table = table_of(run, found, told)
    write_json(folder / KEEP, keep_of(run, by_name[told.winner]))
    write_json(folder / TABLE, table)
    pictures = draw_search(table, folder)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    outputs = {"keep": KEEP, "candidates": TABLE} | dict(zip(pictures, pictures, strict=True))
    return StageOutput(outputs, table, {"seconds": time.perf_counter() - start})


def table_of(run: Run, found: Sequence[Candidate], told: HalvingResult) -> dict:
    """Return what the search found, as JSON: every candidate, best first, and how stable the ranking was."""
    by_name = {one.name: one for one in found}
    sign = (
        1 if run.recipe.search.score == "loss" else -1
    )  # a task's score went into the successive_halving upside down
    rows = [
        {
            "name": name,
            "sizes": dict(by_name[name].sizes),
            "parameters": by_name[name].parameters,
            "cost": by_name[name].cost,
            "scores": [sign * scores[name] for scores in told.rungs if name in scores],
        }
        for name in told.ranking
    ]
    return {
        "winner": told.winner,
        "score": run.recipe.search.score,
        "tokens": [0, *run.recipe.search.rungs][: len(told.rungs)],
        "stability": told.stability(),
        "pareto": pareto_front({one.name: (one.cost, told.rungs[0][one.name]) for one in found}),
        "candidates": rows,
    }


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model, its scores, the rows and the task."""
    section = run.recipe.search
    named = {"dense": run.dense_fingerprint, "score": run.folder.result_hash("score"), "rows": run.dataset_fingerprint}
    if section.dataset is not None:
        named["held_out"] = dataset_fingerprint(run.rows(section.dataset))
    if section.train.method == "kd":
        named["teacher"] = run.teacher_fingerprint
    if section.score != "loss":
        named["task"] = content_hash(task_harness(run))
    return named


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the ranking."""
    told = {"search": run.recipe.search.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}
    told |= {"ranking": asdict(ranking_of(run)), "repairs": run.recipe.prune.model_dump(mode="json")["repairs"]}
    if run.recipe.search.score != "loss":
        told["evaluate"] = vars(evaluation_settings(run))
    return told if run.launch is None else told | {"processes": run.launch.processes}


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say which sizes fit the budget and how many tokens the successive_halving will train on."""
    found, survivors, costs = fitting(run), halving_schedule_of(run), run.costs
    section = run.recipe.search
    steps = [now - before for before, now in pairwise([0, *section.rungs])]
    tokens = sum(count * step for count, step in zip(survivors, steps, strict=True))
    blocks = "" if costs.blocks_are_alike else "; blocks are not alike, so sizes are exact once the blocks are scored"
    lines = [
        f"{len(found)} sizes with {budget_of(run, costs)}{blocks}",
        f"all by {section.score} untrained, then {' -> '.join(map(str, survivors)) or 'none'} of them trained to "
        f"{' -> '.join(f'{rung:,}' for rung in section.rungs) or 'nothing'} tokens: {tokens:,} tokens in all",
        *(f"{one.name:<32} {one.parameters:>15,} parameters {_priced(one)}" for one in found[:SHOWN]),
    ]
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} smaller ones")
    return ("\n" + " " * INDENT).join(lines)


def _priced(one: Candidate) -> str:
    return "" if one.cost == one.parameters else f"{one.cost:>17,} bytes"


def check(run: Run) -> None:
    """Check that something fits the budget, that rows are left to train on, and the training's arguments.

    Raises:
        InputError: one of these is not so, or the recipe has no search.
    """
    section = run.recipe.search
    if section is None:
        raise InputError("the recipe has no `search` section")
    fitting(run)
    if section.dataset is None and section.samples >= len(run.dataset):
        raise InputError(
            f"search.samples is {section.samples}, held out of {len(run.dataset)} rows: none are left to train on"
        )
    check_training(run)
    if section.score != "loss":
        task_harness(run)


def check_training(run: Run) -> None:
    """Check the arguments of the short trainings against TRL's and peft's."""
    arm = run.recipe.search.train
    try:
        args = {"bf16": run.recipe.dtype == "bfloat16"} | training_args(run, arm)
        check_arm(args, arm.peft, arm.method, run.config.num_hidden_layers)
    except InputError as error:
        raise InputError(f"search.train.{error}") from error


STAGE = Stage("search", inputs, settings, work, plan, check=check)
