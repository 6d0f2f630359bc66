"""Figures of the evaluation: recovery, scores by task, size and speed."""

import numpy as np
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import HEIGHT, MODEL_COLOURS, WIDTH, model_colour, new_figure
from trl_prune.reporting.results import ALL_TASKS, RunResults
from trl_prune.runs.stage import Panel


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
    axes.set_xticks(range(len(groups)), [group.replace("capabilities ", "") for group in groups])
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
    """Draw parameters, FLOP and measured speed of the dense and the pruned model."""
    sizes, speeds = results.sizes, results.speeds
    values_by_title = {
        "parameters (M)": {name: size.parameters / 1e6 for name, size in sizes.items()},
        "GFLOP per token": {name: size.flops_per_token / 1e9 for name, size in sizes.items()},
        "prompt tokens/s": {name: speed["prompt"] for name, speed in speeds.items()},
        "decode tokens/s": {name: speed["decode"] for name, speed in speeds.items()},
    }
    figure = Figure(figsize=(WIDTH + 2, HEIGHT - 0.8), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(values_by_title)), values_by_title.items(), strict=True):
        bars = axes.bar(list(values), list(values.values()), color=[MODEL_COLOURS[name] for name in values])
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.margins(y=0.15)
    return figure


def _has_dense_scores(results: RunResults) -> bool:
    return bool(results.scores.get("dense"))


RECOVERY = Panel("recovery", _has_dense_scores, recovery, "Recovery by group of tasks.")
TASK_SCORES = Panel("tasks", _has_dense_scores, task_scores, "Scores by task.")
SIZE_AND_SPEED = Panel(
    "size_and_speed",
    lambda results: results.sizes and len(results.speeds) == len(MODEL_COLOURS),
    size_and_speed,
    "Size and speed.",
)
