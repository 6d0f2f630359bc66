"""Write a comparison of models: as data, and as pages."""

import math
from dataclasses import asdict
from pathlib import Path

from trl_prune.checkpoints import write_json, write_text
from trl_prune.evaluation.comparison import ComparedModels, verdict
from trl_prune.reporting.comparison_tables import notes
from trl_prune.reporting.rendering import render


DATA, PAGES = "comparison.json", ("comparison.html", "comparison.md")


def verdicts(compared: ComparedModels) -> list[str]:
    """Return one sentence on each model, the last first: none is chosen by its scores."""
    return [verdict(comparison) for comparison in reversed(compared.comparisons.values())]


def write_comparison(compared: ComparedModels, folder: Path) -> Path:
    """Write a comparison into a folder and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DATA, comparison_values(compared))
    values = {
        "title": f"{', '.join(compared.comparisons)} beside {compared.dense}",
        "compared": compared,
        "verdicts": verdicts(compared),
    }
    for page in PAGES:
        write_text(folder / page, render(page, values))
    return folder / PAGES[0]


def comparison_values(compared: ComparedModels) -> dict:
    """Return all figures of a comparison as JSON-like values."""
    values = {
        "dense": compared.dense,
        "results": {name: str(one.path) for name, one in compared.results.items()},
        "verdicts": verdicts(compared),
        "notes": notes(compared),
        "models": {name: asdict(comparison) for name, comparison in compared.comparisons.items()},
        "flips": {name: [asdict(flip) for flip in compared.flips(name)] for name in compared.comparisons},
    }
    return without_nan(values)


def without_nan(value: object) -> object:
    """Return values with None for NaN, which is no JSON."""
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
