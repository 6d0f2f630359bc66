"""Draw the figures of a run's panels and render the report's pages, HTML and Markdown."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from trl_prune.evaluation.recovery import Estimate
from trl_prune.reporting.plots.style import DPI
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel, Stage


PAGES = ("report.html", "report.md")


def available_panels(results: RunResults, stages: Sequence[Stage]) -> list[Panel]:
    """Return the panels that the run has results for: those of the last stage first, as they matter most."""
    return [panel for stage in reversed(stages) for panel in stage.panels if panel.is_available(results)]


def write_report(results: RunResults, stages: Sequence[Stage], folder: Path) -> dict[str, str]:
    """Write the figures into a folder, and return the text of each page.

    Args:
        results: the run's results.
        stages: the stages whose panels are shown.
        folder: the report's folder.
    """
    panels = available_panels(results, stages)
    for panel in panels:
        if panel.draw is not None:
            panel.draw(results).savefig(folder / f"{panel.name}.png", dpi=DPI, bbox_inches="tight")
    figures = [panel.name for panel in panels if panel.draw is not None]
    values = {
        "results": results,
        "panels": panels,
        "embedded": {name: _data_url(folder / f"{name}.png") for name in figures},
    }
    return {page: _render(page, values) for page in PAGES}


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _render(page: str, values: dict) -> str:
    environment = Environment(
        loader=PackageLoader("trl_prune", "reporting/templates"),
        autoescape=page.endswith("html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "plain": plain, "cell": cell}
    return environment.get_template(f"{page}.j2").render(values)


def percent(estimate: Estimate | None) -> str:
    """Return an estimate in per cent with its standard error."""
    return "" if estimate is None else f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}"


def plain(estimate: Estimate | None) -> str:
    """Return an estimate with its standard error."""
    return "" if estimate is None else f"{estimate.value:.3f} ± {estimate.stderr:.3f}"


def cell(text: str) -> str:
    """Return text on one line, without what would end the cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
