"""Draw the figures of a run's panels and render the report's pages, HTML and Markdown."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from trl_prune.reporting.comparisons import verdicts
from trl_prune.reporting.costs import COST_TABLE, arm_costs
from trl_prune.reporting.plots.capabilities import CAPABILITIES
from trl_prune.reporting.plots.pareto import PARETO_PARAMETERS, PARETO_SPEED
from trl_prune.reporting.plots.style import DPI, NARROW
from trl_prune.reporting.rendering import render
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel, Stage


PAGES = ("report.html", "report.md")
# What a team decides by comes first; the panels of the stages follow, those of the last stage first.
FIRST = (CAPABILITIES, PARETO_PARAMETERS, PARETO_SPEED)
# After these stages' panels comes the cost.
BEFORE_COST = ("speculate",)


@dataclass(frozen=True)
class Picture:
    """A figure inside a page: its bytes as an address, and whether it is wider than a phone's screen."""

    url: str
    is_wide: bool


def ordered_panels(stages: Sequence[Stage]) -> list[Panel]:
    """Return all panels of the report, in its order."""
    reversed_stages = list(reversed(stages))
    early = [panel for stage in reversed_stages if stage.name in BEFORE_COST for panel in stage.panels]
    late = [panel for stage in reversed_stages if stage.name not in BEFORE_COST for panel in stage.panels]
    return [*FIRST, *early, COST_TABLE, *late]


def available_panels(results: RunResults, stages: Sequence[Stage]) -> list[Panel]:
    """Return the panels that the run has results for, in the report's order."""
    return [panel for panel in ordered_panels(stages) if panel.is_available(results)]


def write_report(results: RunResults, stages: Sequence[Stage], folder: Path) -> dict[str, str]:
    """Write the figures into a folder, and return the text of each page.

    Args:
        results: the run's results.
        stages: the stages whose panels are shown.
        folder: the report's folder.
    """
    panels = available_panels(results, stages)
    figures = ((panel.name, panel.draw(results)) for panel in panels if panel.draw is not None)
    values = {
        "results": results,
        "panels": panels,
        "pictures": (pictures := write_pictures(figures, folder)),
        "groups": side_by_side(panels, pictures),
        "costs": arm_costs(results),
        "verdicts": verdicts(results),
    }
    return {page: render(page, values) for page in PAGES}


def side_by_side(panels: Sequence[Panel], pictures: Mapping[str, Picture]) -> list[list[Panel]]:
    """Return the panels in groups: neighbouring narrow figures, which fit beside each other, and each other panel."""

    def group(item: tuple[int, Panel]) -> int:
        index, panel = item
        return -1 if panel.name in pictures and not pictures[panel.name].is_wide else index

    return [[panel for _, panel in items] for _, items in groupby(enumerate(panels), group)]


def write_pictures(figures: Iterable[tuple[str, Figure]], folder: Path) -> dict[str, Picture]:
    """Write figures as PNG into a folder and return them as pages embed them, by name."""
    return {name: _write_picture(figure, folder / f"{name}.png") for name, figure in figures}


def _write_picture(figure: Figure, path: Path) -> Picture:
    is_wide = figure.get_size_inches()[0] > NARROW
    figure.savefig(path, dpi=DPI if is_wide else 2 * DPI, bbox_inches="tight")
    return Picture("data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), is_wide)
