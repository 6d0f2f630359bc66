"""Figures of the evaluation: recovery, scores by task, size and speed."""

from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.evaluation.speed import DECODE, PREFILL, Bound, SpeedComparison
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.plots.style import MODEL_COLOURS, NARROW, RED, TEXT, model_colour, model_style, new_figure
from trl_prune.reporting.results import ALL_TASKS, RunResults
from trl_prune.runs.stage import Panel


# Characters of a line below a group of bars.
LABEL = 14
# Width of all bars of a group together; groups are 1 apart.
GROUP_WIDTH = 0.8


def recovery(results: RunResults) -> Figure:
    """Draw each model's recovery over each group of tasks, with standard errors."""
    figure, axes = new_figure()
    names, groups = list(results.scores), list(results.groups)
    width = GROUP_WIDTH / len(names)
    for index, name in enumerate(names):
        estimates = [row.recovery.recovery for row in results.rows if row.model == name]
        values, errors = ([100 * getattr(one, key) for one in estimates] for key in ("value", "stderr"))
        positions = _bar_positions(index, len(names), len(groups))
        bars = axes.bar(
            positions, values, width, yerr=errors, color=model_colour(results, name), label=name, capsize=3
        )
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.axhline(100, color="grey", linestyle="--", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [fill(group.replace("capabilities ", ""), LABEL) for group in groups])
    axes.set(ylabel="% of the dense model's score", title="Recovery (mean over tasks, standard error)")
    axes.margins(y=0.25)
    axes.legend(ncols=len(names), fontsize=8, loc="upper center")
    return figure


def _bar_positions(index: int, bars: int, groups: int) -> np.ndarray:
    """Return the centre of a model's bar in each group."""
    return np.arange(groups) + (index - (bars - 1) / 2) * GROUP_WIDTH / bars


def task_scores(results: RunResults) -> Figure:
    """Draw every model's score on every task, with the chance score dotted."""
    names, tasks = list(results.scores), results.groups[ALL_TASKS]
    figure, axes = new_figure(height=0.42 * len(tasks) * max(1, len(names) / 3) + 1.6)
    for index, name in enumerate(names):
        scores = [results.scores[name][task] for task in tasks]
        positions = _bar_positions(index, len(names), len(tasks))
        means, errors = [score.mean for score in scores], [score.stderr for score in scores]
        colour = model_colour(results, name)
        axes.barh(positions, means, GROUP_WIDTH / len(names), xerr=errors, color=colour, label=name)
    for position, task in enumerate(tasks):
        chance = results.scores["dense"][task].chance
        if chance:
            axes.plot([chance, chance], [position - 0.42, position + 0.42], "k:", linewidth=1.2)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.invert_yaxis()
    axes.set(xlabel="score (dotted: chance)", title="Score by task")
    axes.legend(fontsize=8)
    return figure


def size_and_speed(results: RunResults) -> Figure:
    """Draw the pruned model's cost as a share of the dense one's, and below its measured and its possible speed-up."""
    rows = 1 if results.speed is None else 2
    figure = Figure(figsize=(NARROW, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    _draw_cost(axes[0], results)
    if results.speed is not None:
        _draw_speed_up(axes[1], results.speed, results.speed_bound)
    return figure


def _draw_cost(axes: Axes, results: RunResults) -> None:
    (dense, pruned), (dense_work, work) = (
        [values[name] for name in MODEL_COLOURS] for values in (results.sizes, results.work)
    )
    shares = {
        "parameters": pruned.parameters / dense.parameters,
        "FLOP a token": pruned.flops_per_token / dense.flops_per_token,
        "KV cache": work.cache_values / dense_work.cache_values,
    }
    style = model_style(results, "pruned")
    bars = axes.barh(list(shares), [100 * share for share in shares.values()], color=style.colour, hatch=style.hatch)
    axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=TEXT)
    axes.axvline(100, color="grey", linestyle="--", linewidth=0.8)
    axes.set_xlim(0, max(115.0, 115 * max(shares.values())))
    axes.invert_yaxis()
    axes.tick_params(labelsize=TEXT)
    axes.set_title("pruned, % of dense", fontsize=TEXT)


def _draw_speed_up(axes: Axes, speed: SpeedComparison, allowed: Bound) -> None:
    names = [PREFILL, DECODE]
    gains: list[Interval] = [getattr(speed, name) for name in names]
    values = [gain.value for gain in gains]
    errors = [[gain.value - gain.low for gain in gains], [gain.high - gain.value for gain in gains]]
    label = "measured, 95 % interval" if all(gain.is_known for gain in gains) else "measured, too few times"
    axes.errorbar(values, [0, 1], xerr=errors, fmt="o", color="black", capsize=4, label=label)
    bounds = [getattr(allowed, name) for name in names]
    axes.plot(bounds, [0, 1], "D", color=RED, fillstyle="none", markersize=11, label="allowed by the cost")
    axes.axvline(1, color="grey", linestyle="--", linewidth=0.8)
    axes.set_yticks([0, 1], names)
    axes.set_ylim(2.6, -0.5)  # room for the legend
    axes.margins(x=0.15)
    axes.tick_params(labelsize=TEXT)
    axes.set_title("times as fast as dense", fontsize=TEXT)
    axes.legend(fontsize=TEXT - 1, loc="lower center", frameon=False)


def _has_dense_scores(results: RunResults) -> bool:
    return bool(results.groups)


RECOVERY = Panel("recovery", _has_dense_scores, recovery, "Recovery by group of tasks.")
TASK_SCORES = Panel("tasks", _has_dense_scores, task_scores, "Scores by task.")
SIZE_AND_SPEED = Panel("size_and_speed", lambda results: results.sizes, size_and_speed, "Size and speed.")
