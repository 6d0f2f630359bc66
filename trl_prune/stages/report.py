"""report: what a run did and what came back, on one page that stands by itself."""

import base64
import json
import time
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment, PackageLoader

from trl_prune.artifacts import Outcome
from trl_prune.checkpoints import write_json, write_text
from trl_prune.context import Run
from trl_prune.evaluation.recovery import Estimate
from trl_prune.stages.findings import Findings
from trl_prune.stages.plots import draw
from trl_prune.stages.stage import Stage


PAGES = ("report.html", "report.md")


def work(run: Run, unit: str, folder: Path) -> Outcome:  # noqa: ARG001
    """Draw the pictures and write the pages."""
    start = time.perf_counter()
    findings = Findings(run)
    pictures = draw(findings, folder)
    table = {"lines": [asdict(line) for line in findings.lines], "differences": findings.differences}
    write_json(folder / "recovery.json", table)
    facts = page_facts(run, findings, pictures, folder)
    for page in PAGES:
        write_text(folder / page, render(page, facts))
    outputs = {"recovery": "recovery.json"} | {page: page for page in PAGES}
    metrics = {f"{line.group}: {line.model}": line.recovery.recovery.value for line in findings.lines}
    return Outcome(outputs, metrics, {"seconds": time.perf_counter() - start}, frozenset(PAGES))


def render(page: str, facts: dict) -> str:
    """Return a page from its template."""
    environment = Environment(
        loader=PackageLoader("trl_prune", "stages"),
        autoescape=page.endswith("html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "plain": plain, "cell": cell}
    return environment.get_template(f"{page}.j2").render(facts)


def percent(estimate: Estimate | None) -> str:
    """Return an estimate in per cent with its standard error."""
    return "" if estimate is None else f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}"


def plain(estimate: Estimate | None) -> str:
    """Return an estimate with its standard error."""
    return "" if estimate is None else f"{estimate.value:.3f} ± {estimate.stderr:.3f}"


def cell(text: str) -> str:
    """Return text that stays inside a Markdown table's cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def page_facts(run: Run, findings: Findings, pictures: dict[str, str], folder: Path) -> dict:
    """Return all that the page templates show."""
    notes = run.folder.notes()
    return {
        "recipe": run.recipe,
        "root": run.root,
        "notes": notes,
        "findings": findings,
        "pictures": pictures,
        "embedded": {name: _embedded(folder / name) for name in pictures},
        "examples": examples(findings.rewritten_rows, run.recipe.report.examples),
        "results": {name: run.folder.result("recover", name) for name in run.recipe.recover},
        "seconds": seconds(run),
    }


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def examples(rows: list[dict], count: int) -> list[dict]:
    """Return rewritten rows to show: of each verdict some, accepted ones first."""
    by_verdict: dict[str, list[dict]] = {}
    for row in rows:
        by_verdict.setdefault(row["verdict"], []).append(row)
    accepted = by_verdict.pop("accepted", [])
    others = [row for group in zip(*by_verdict.values(), strict=False) for row in group]
    half = (count + 1) // 2
    return [_example(row) for row in accepted[:half] + others[: count - half]]


def _example(row: dict) -> dict:
    turns = row.get("prompt") or row["messages"][:-1]
    prompt = turns if isinstance(turns, str) else turns[-1]["content"]
    return {
        "prompt": prompt,
        "reference": row["reference_answer"],
        "answer": row["rewrite"],
        "verdict": row["verdict"],
    }


def seconds(run: Run) -> dict[str, float]:
    """Return how long each finished stage took."""
    told = {}
    for path in sorted(run.folder.path.glob("*/**/timing.json")):
        name = " ".join(path.relative_to(run.folder.path).parts[:-1])
        told[name] = json.loads(path.read_text()).get("seconds", 0.0)
    return told


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
