"""report: what a run did and how much quality was recovered, as one self-contained page."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from trl_prune.checkpoints import write_json, write_text
from trl_prune.recipe import Recipe
from trl_prune.reporting.card import write_cards
from trl_prune.reporting.console import show_recovery
from trl_prune.reporting.page import PAGES, write_report
from trl_prune.reporting.results import RunResults
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.stage import Stage


RECOVERY = "recovery.json"


def report_stage(reported: Sequence[Stage]) -> Stage:
    """Return the stage that reports the results of other stages and shows their panels."""
    return Stage(
        "report",
        partial(inputs, reported),
        settings,
        partial(execute, reported),
        describe,
        needs=needs,
        show=show_recovery,
    )


def execute(reported: Sequence[Stage], run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Write the recovery table, the figures, the pages, and the model cards with their scores."""
    start = time.perf_counter()
    results = RunResults(run)
    write_json(folder / RECOVERY, {"lines": [asdict(row) for row in results.rows], "differences": results.differences})
    for page, text in write_report(results, reported, folder).items():
        write_text(folder / page, text)
    write_cards(results)
    outputs = {"recovery": RECOVERY} | {page: page for page in PAGES}
    metrics = {f"{row.group}: {row.model}": row.recovery.recovery.value for row in results.rows}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start}, frozenset(PAGES))


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that make what the report shows at least."""
    return ["prune", "recover", "evaluate"] + ["rewrite"] * (recipe.rewrite is not None)


def inputs(reported: Sequence[Stage], run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the hash of every result that the run has."""
    hashes = {}
    for stage in reported:
        for part_name in stage.parts(run.recipe):
            if run.folder.result(stage.name, part_name) is not None:
                hashes[f"{stage.name} {part_name}".strip()] = run.folder.result_hash(stage.name, part_name)
    return hashes


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the pages."""
    return {"report": run.recipe.report.model_dump(mode="json"), "seed": run.recipe.seed}


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return the path of the page."""
    return str(run.folder.stage_dir("report") / PAGES[0])
