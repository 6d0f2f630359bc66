"""Templates to text, with the formats of numbers and of foreign text that they share."""

import math
import re

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from trl_prune.evaluation.recovery import Estimate
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.comparison_tables import (
    GROUP_COLUMNS,
    LEGEND,
    TASK_COLUMNS,
    group_cells,
    notes,
    says_something,
    task_cells,
)
from trl_prune.reporting.published_recipe import published_text


# What would be a tag, an entity, a link, an image, code, emphasis or the end of a table's cell in Markdown.
MARKUP = re.compile(r"[\\`*\[\]|]")
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def render(template: str, values: dict) -> str:
    """Return a template of `templates/` (its name without `.j2`) filled in; names that end in html escape values.

    In Markdown a value starts no tag, except inside blocks of code, whose values are marked as safe.
    """
    is_html = template.endswith("html")
    environment = Environment(
        loader=PackageLoader("trl_prune", "reporting/templates"),
        autoescape=is_html,
        finalize=None if is_html else _without_tags,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "plain": plain, "rate": rate, "cell": cell}
    environment.filters |= {"published": published_text}
    environment.filters |= {"task_cells": task_cells, "group_cells": group_cells, "comparison_notes": notes}
    environment.globals |= {
        "task_columns": TASK_COLUMNS,
        "group_columns": GROUP_COLUMNS,
        "comparison_legend": LEGEND,
    }
    return environment.get_template(f"{template}.j2").render(values)


def _without_tags(value: object) -> object:
    return value.replace("<", ENTITIES["<"]) if isinstance(value, str) and not isinstance(value, Markup) else value


def percent(estimate: Estimate | None) -> str:
    """Return a share in per cent with its standard error; empty where it says nothing."""
    return f"{100 * estimate.value:.1f} ± {100 * estimate.stderr:.1f}" if says_something(estimate) else ""


def plain(estimate: Estimate | None) -> str:
    """Return an estimate with its standard error; empty where it is no number."""
    is_known = estimate is not None and math.isfinite(estimate.value)
    return f"{estimate.value:.3f} ± {estimate.stderr:.3f}" if is_known else ""


def rate(speed: Interval | None) -> str:
    """Return a number per second with its interval, if it has one."""
    if speed is None:
        return ""
    return f"{speed.value:.1f}" + (f" [{speed.low:.1f}, {speed.high:.1f}]" if speed.is_known else "")


def cell(text: str) -> str:
    """Return foreign text as Markdown that shows it and nothing else, on one line, for a table's cell or a list."""
    escaped = re.sub("[&<>]", lambda found: ENTITIES[found[0]], " ".join(str(text).split()))
    return MARKUP.sub(lambda found: "\\" + found[0], escaped)
