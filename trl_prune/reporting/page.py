"""Render the report's pages, HTML and Markdown, from a run's results."""

import base64
import json
from pathlib import Path

from jinja2 import Environment, PackageLoader

from trl_prune.evaluation.recovery import Estimate
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


PAGES = ("report.html", "report.md")


def render(page: str, facts: dict) -> str:
    """Return a page from its template."""
    environment = Environment(
        loader=PackageLoader("trl_prune", "reporting/templates"),
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


def page_facts(run: Run, results: RunResults, pictures: dict[str, str], folder: Path) -> dict:
    """Return all that the page templates show."""
    notes = run.folder.notes()
    return {
        "recipe": run.recipe,
        "root": run.root,
        "notes": notes,
        "results": results,
        "pictures": pictures,
        "embedded": {name: _embedded(folder / name) for name in pictures},
        "examples": examples(results.rewritten_rows, run.recipe.report.examples),
        "arms": {name: run.folder.result("recover", name) for name in run.recipe.recover},
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
