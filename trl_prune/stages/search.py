"""search: which sizes fit the budget, and which of them recovers best."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from tqdm.auto import tqdm

from trl_prune.checkpoints import write_json
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import content_hash
from trl_prune.pruning.search import HalvingResult, pareto_front, successive_halving
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.recipe import Recipe
from trl_prune.reporting.console import show_search
from trl_prune.reporting.plots.search import PARETO, RANK_STABILITY, draw_search
from trl_prune.runs.arms import check_training
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run, dataset_fingerprint
from trl_prune.runs.evaluation import evaluation_values
from trl_prune.runs.ledger import Ledger
from trl_prune.runs.search_space import (
    candidate_keep,
    candidate_ranking,
    search_budget,
    search_candidates,
    survivors_per_rung,
)
from trl_prune.runs.stage import Stage
from trl_prune.runs.trials import Trials, score_tasks


KEEP, TABLE, MEASURED, SCRATCH = "keep.json", "candidates.json", "measured.json", "candidates"
# Largest number of candidates that a dry run lists.
MAX_LISTED = 24
# Column at which a stage's description starts in the printed plan.
INDENT = 26


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Measure the candidates by successive halving, resuming an interrupted search, and write the winner's plan."""
    start = time.perf_counter()
    candidates, survivors = search_candidates(run), survivors_per_rung(run)
    store = Ledger(folder / MEASURED)
    by_name = {candidate.name: candidate for candidate in candidates}
    with tqdm(total=len(candidates) + sum(survivors), initial=len(store), desc="search", unit="trial") as bar:
        trials = Trials(run, folder / SCRATCH, by_name, max(survivors, default=0), bar.update)
        result = successive_halving(list(by_name), survivors, trials.measure, store, trials.drop)
    table = result_table(run, candidates, result)
    write_json(folder / KEEP, candidate_keep(run, by_name[result.winner]))
    write_json(folder / TABLE, table)
    figures = draw_search(table, folder)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    outputs = {"keep": KEEP, "candidates": TABLE} | {figure: figure for figure in figures}
    return StageOutput(outputs, table, {"seconds": time.perf_counter() - start})


def result_table(run: Run, candidates: Sequence[Candidate], result: HalvingResult) -> dict:
    """Return the search's result as JSON: every candidate, the best first, and how stable the ranking was."""
    by_name = {candidate.name: candidate for candidate in candidates}
    sign = 1 if run.recipe.search.score == "loss" else -1  # successive halving minimises: a task's score is negated
    rows = [
        {
            "name": name,
            "sizes": dict(by_name[name].sizes),
            "parameters": by_name[name].parameters,
            "cost": by_name[name].cost,
            "scores": [sign * scores[name] for scores in result.rungs if name in scores],
        }
        for name in result.ranking
    ]
    untrained = {candidate.name: (candidate.cost, result.rungs[0][candidate.name]) for candidate in candidates}
    return {
        "winner": result.winner,
        "score": run.recipe.search.score,
        "tokens": [0, *run.recipe.search.rungs][: len(result.rungs)],
        "stability": result.stability(),
        "pareto": pareto_front(untrained),
        "candidates": rows,
    }


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model, its scores, the rows, the teacher and the task."""
    section = run.recipe.search
    hashes = {
        "dense": run.dense_fingerprint,
        "score": run.folder.result_hash("score"),
        "rows": run.dataset_fingerprint,
    }
    if section.dataset is not None:
        hashes["held_out"] = dataset_fingerprint(run.rows(section.dataset))
    if section.train.has_teacher:
        hashes["teacher"] = run.teacher_fingerprint
    if section.score != "loss":
        hashes["task"] = content_hash(score_tasks(run))
    return hashes


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the ranking."""
    values = {"search": run.recipe.search.model_dump(mode="json"), "seed": run.recipe.seed, "dtype": run.dtype}
    values["ranking"] = asdict(candidate_ranking(run))
    values["repairs"] = run.recipe.prune.model_dump(mode="json")["repairs"]
    if run.recipe.search.score != "loss":
        values["evaluate"] = evaluation_values(run)
    values |= run.recipe.template_settings
    return values if run.launch is None else values | {"processes": run.launch.processes}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return the sizes that fit the budget and the number of training tokens."""
    section, costs = run.recipe.search, run.costs
    candidates, survivors = search_candidates(run), survivors_per_rung(run)
    steps = [tokens - before for before, tokens in pairwise([0, *section.rungs])]
    total = sum(count * step for count, step in zip(survivors, steps, strict=True))
    blocks = "" if costs.blocks_cost_the_same else "; blocks differ, so costs are exact only once blocks are scored"
    lines = [
        f"{len(candidates)} sizes with {search_budget(run).describe(costs)}{blocks}",
        f"all by {section.score} untrained, then {' -> '.join(map(str, survivors)) or 'none'} of them trained to "
        f"{' -> '.join(f'{rung:,}' for rung in section.rungs) or 'nothing'} tokens: {total:,} tokens in all",
        *(_line(candidate) for candidate in candidates[:MAX_LISTED]),
    ]
    if len(candidates) > MAX_LISTED:
        lines.append(f"and {len(candidates) - MAX_LISTED} smaller ones")
    return ("\n" + " " * INDENT).join(lines)


def _line(candidate: Candidate) -> str:
    cost = "" if candidate.cost == candidate.parameters else f"{candidate.cost:>17,} bytes"
    return f"{candidate.name:<32} {candidate.parameters:>15,} parameters {cost}"


def needs(recipe: Recipe) -> list[str]:  # noqa: ARG001
    """Return the score stage."""
    return ["score"]


def is_configured(recipe: Recipe) -> bool:
    """Return whether the recipe has a `search` section."""
    return recipe.search is not None


def check(run: Run) -> None:
    """Check that a size fits the budget, that rows are left to train on, and the short training's arguments.

    Raises:
        InputError: a check fails, or the recipe has no `search` section.
    """
    section = run.recipe.search
    if section is None:
        raise InputError("the recipe has no `search` section")
    if section.dataset is None and section.samples >= len(run.dataset):
        raise InputError(
            f"search.samples is {section.samples}, held out of {len(run.dataset)} rows: none are left to train on"
        )
    check_training(run, section.train, "search.train")
    if section.score != "loss":
        score_tasks(run)
    search_candidates(run)


STAGE = Stage(
    "search",
    inputs,
    settings,
    execute,
    describe,
    needs=needs,
    is_configured=is_configured,
    check=check,
    panels=(PARETO, RANK_STABILITY),
    show=show_search,
)
