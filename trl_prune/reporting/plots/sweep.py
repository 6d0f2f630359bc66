"""Figure of the scores of arms that differ in the number of training rows."""

from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from trl_prune.evaluation.recovery import Estimate
from trl_prune.reporting.plots.style import ARM_COLOURS, MODEL_COLOURS, new_figure
from trl_prune.reporting.results import ALL_TASKS, RunResults
from trl_prune.runs.stage import Panel


def sweeps(results: RunResults) -> dict[str, dict[int, str]]:
    """Return the evaluated arms of each sweep by their number of rows, given the sweep's name.

    An arm belongs to a sweep by its name, as `recipe.recover.expand_sweeps` gives it: `ARM-250` has 250 rows.
    """
    found: dict[str, dict[int, str]] = {}
    for name, arm in results.run.recipe.recover.items():
        sweep = name.removesuffix(f"-{arm.rows}")
        if sweep != name and name in results.scores:
            found.setdefault(sweep, {})[arm.rows] = name
    return {sweep: dict(sorted(arms.items())) for sweep, arms in found.items() if len(arms) > 1}


def score_by_rows(results: RunResults) -> Figure:
    """Draw each sweep's mean score over all tasks against its number of training rows, with standard errors."""
    scores = {row.model: row.recovery.score for row in results.rows if row.group == ALL_TASKS}
    figure, axes = new_figure()
    for (sweep, arms), colour in zip(sweeps(results).items(), cycle(ARM_COLOURS), strict=False):
        points: list[Estimate] = [scores[name] for name in arms.values()]
        values, errors = ([getattr(point, key) for point in points] for key in ("value", "stderr"))
        axes.errorbar(list(arms), values, errors, marker="o", capsize=3, color=colour, label=sweep)
    for name, colour in MODEL_COLOURS.items():
        if name in scores:
            axes.axhline(scores[name].value, color=colour, linestyle="--", linewidth=0.8, label=name)
    counts = sorted({rows for arms in sweeps(results).values() for rows in arms})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(counts, [f"{rows:,}" for rows in counts])
    axes.set(xlabel="training rows", ylabel="mean score", title="Score against training rows (standard error)")
    axes.legend()
    return figure


def _has_scores(results: RunResults) -> bool:
    """Return whether there is a sweep, with a mean score: tasks that are all perplexities have none."""
    return bool(sweeps(results)) and ALL_TASKS in results.groups


SCORE_BY_ROWS = Panel("score_by_rows", _has_scores, score_by_rows, "Score against training rows.")
