"""report: what a run did and what came back, on one page that stands by itself."""

import time
from dataclasses import asdict
from pathlib import Path

from trl_prune.checkpoints import write_json, write_text
from trl_prune.reporting.page import PAGES, page_facts, render
from trl_prune.reporting.plots.plots import draw
from trl_prune.reporting.results import RunResults
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.stage import Stage


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Draw the pictures and write the pages."""
    start = time.perf_counter()
    results = RunResults(run)
    pictures = draw(results, folder)
    table = {"lines": [asdict(line) for line in results.lines], "differences": results.differences}
    write_json(folder / "recovery.json", table)
    facts = page_facts(run, results, pictures, folder)
    for page in PAGES:
        write_text(folder / page, render(page, facts))
    outputs = {"recovery": "recovery.json"} | {page: page for page in PAGES}
    metrics = {f"{line.group}: {line.model}": line.recovery.recovery.value for line in results.lines}
    return StageOutput(outputs, metrics, {"seconds": time.perf_counter() - start}, frozenset(PAGES))


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name every result there is."""
    told = {}
    names = [("score", ""), ("search", ""), ("prune", ""), ("rewrite", ""), ("cache_teacher", "")]
    names += [("recover", arm) for arm in run.recipe.recover]
    names += [("evaluate", model) for model in run.recipe.evaluated]
    for stage, part in names:
        if run.folder.result(stage, part) is not None:
            told[f"{stage} {part}".strip()] = run.folder.result_hash(stage, part)
    return told


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the page."""
    return {"report": run.recipe.report.model_dump(mode="json"), "seed": run.recipe.seed}


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say where the page will be."""
    return str(run.folder.path / "report" / PAGES[0])


STAGE = Stage("report", inputs, settings, work, plan)
