"""The report's pictures."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np


mpl.use("Agg")

import matplotlib.pyplot as plt

from trl_prune.reporting.plots.search import pareto, rank_stability
from trl_prune.reporting.results import RunResults


COLOURS = {"dense": "#4a4a4a", "pruned": "#c44e52"}
ARM_COLOURS = ("#4c72b0", "#55a868", "#8172b3", "#ccb974", "#64b5cd", "#dd8452")
WIDTH, HEIGHT, DPI = 7.2, 3.8, 130


def colour(results: RunResults, name: str) -> str:
    """Return a model's colour, the same in every picture."""
    arms = list(results.run.recipe.recover)
    return COLOURS.get(name) or ARM_COLOURS[arms.index(name) % len(ARM_COLOURS)]


def angular_distance(results: RunResults) -> plt.Figure:
    """Draw the angular distance of every run of blocks, the removed run marked."""
    distance = results.layer_scores.angular_distance().numpy()
    layers = len(distance) - 1
    grid = np.full((layers, layers), np.nan)
    for length in range(1, layers + 1):
        grid[length - 1, : layers - length + 1] = distance.diagonal(length)
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT + 0.6))
    shades = axes.imshow(
        grid, origin="lower", aspect="auto", cmap="viridis", extent=(-0.5, layers - 0.5, 0.5, layers + 0.5)
    )
    figure.colorbar(shades, label="angular distance")
    _mark_cut(axes, results.removed)
    axes.set(
        xlabel="first block of the run", ylabel="length of the run", title="How far a run of blocks turns its input"
    )
    return figure


def _mark_cut(axes: plt.Axes, removed: list[int]) -> None:
    if not removed:
        return
    contiguous = removed == list(range(removed[0], removed[0] + len(removed)))
    places = [(removed[0], len(removed))] if contiguous else [(index, 1) for index in removed]
    label = f"removed: {removed[0]}-{removed[-1]}" if contiguous else f"removed: {removed}"
    axes.scatter(
        *zip(*places, strict=True), marker="s", s=70, facecolors="none", edgecolors="red", linewidths=2, label=label
    )
    axes.legend(loc="upper right")


def recovery_bars(results: RunResults) -> plt.Figure:
    """Draw each model's recovery over each group of tasks, with standard errors."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    names = list(results.scores)
    groups = list(results.groups)
    for place, name in enumerate(names):
        told = [line.recovery.recovery for line in results.lines if line.model == name]
        offsets = np.arange(len(groups)) + (place - (len(names) - 1) / 2) * 0.8 / len(names)
        bars = axes.bar(
            offsets,
            [100 * estimate.value for estimate in told],
            0.8 / len(names),
            yerr=[100 * estimate.stderr for estimate in told],
            color=colour(results, name),
            label=name,
            capsize=3,
        )
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.axhline(100, color="grey", linestyle="--", linewidth=0.8)
    axes.set_xticks(range(len(groups)), [group.replace("capabilities ", "") for group in groups])
    axes.set(ylabel="% of the dense model's score", title="Recovery (mean over tasks, standard error)")
    axes.margins(y=0.25)
    axes.legend(ncols=len(names), fontsize=8, loc="upper center")
    return figure


def task_scores(results: RunResults) -> plt.Figure:
    """Draw every model's score on every task, and what guessing gives."""
    names, tasks = list(results.scores), results.groups["all tasks"]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.42 * len(tasks) * max(1, len(names) / 3) + 1.6))
    for place, name in enumerate(names):
        scores = [results.scores[name][task] for task in tasks]
        offsets = np.arange(len(tasks)) + (place - (len(names) - 1) / 2) * 0.8 / len(names)
        means, errors = [score.mean for score in scores], [score.stderr for score in scores]
        axes.barh(offsets, means, 0.8 / len(names), xerr=errors, color=colour(results, name), label=name)
    for place, task in enumerate(tasks):
        chance = results.scores["dense"][task].chance
        if chance:
            axes.plot([chance, chance], [place - 0.42, place + 0.42], "k:", linewidth=1.2)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.invert_yaxis()
    axes.set(xlabel="score (dotted: guessing)", title="Score by task")
    axes.legend(fontsize=8)
    return figure


def loss_curves(results: RunResults) -> plt.Figure:
    """Draw the arms' training losses; arms on different answers have different floors."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    for name, log in results.logs.items():
        # Arms that distil log a divergence as their loss, and the cross-entropy beside it.
        points = [(entry["step"], entry.get("ce_loss", entry["loss"])) for entry in log if "loss" in entry]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", color=colour(results, name), label=name)
    axes.set(
        xlabel="optimizer step",
        ylabel="cross-entropy (nats a token)",
        title="Cross-entropy of each arm on its own answers",
    )
    axes.legend()
    return figure


def size_and_speed(results: RunResults) -> plt.Figure:
    """Draw parameters, arithmetic and measured speed, dense against pruned."""
    sizes, speeds = results.sizes, results.speeds
    panels = {
        "parameters (M)": {name: size.parameters / 1e6 for name, size in sizes.items()},
        "GFLOP a token": {name: size.flops_per_token / 1e9 for name, size in sizes.items()},
        "prompt tokens/s": {name: speed["prompt"] for name, speed in speeds.items()},
        "decode tokens/s": {name: speed["decode"] for name, speed in speeds.items()},
    }
    figure, row = plt.subplots(1, len(panels), figsize=(WIDTH + 2, HEIGHT - 0.8), layout="constrained")
    for axes, (title, values) in zip(row, panels.items(), strict=True):
        bars = axes.bar(list(values), list(values.values()), color=[COLOURS[name] for name in values])
        axes.bar_label(bars, fmt=lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.margins(y=0.15)
    return figure


def acceptance_bars(results: RunResults) -> plt.Figure:
    """Draw, per capability, what became of the dense model's answers."""
    told = results.acceptance
    verdicts = sorted(
        {verdict for group in told.values() for verdict in group["verdicts"]}, key=lambda v: (v != "accepted", v)
    )
    figure, axes = plt.subplots(figsize=(WIDTH, 0.32 * len(told) + 1.6))
    left = np.zeros(len(told))
    for number, verdict in enumerate(verdicts):
        shares = np.array([100 * group["verdicts"].get(verdict, 0) / group["rows"] for group in told.values()])
        shade = "#55a868" if verdict == "accepted" else plt.get_cmap("tab20")(2 * number + 1)
        axes.barh(list(told), shares, left=left, color=shade, label=verdict)
        left += shares
    axes.invert_yaxis()
    axes.set(xlabel="% of rows", xlim=(0, 100), title="Rewritten answers kept, and why others were not")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.18))
    return figure


# Each picture, what it needs, and its caption.
PICTURES: dict[str, tuple[Callable[[RunResults], plt.Figure], Callable[[RunResults], object], str]] = {
    "search_pareto": (lambda f: pareto(f.search), lambda f: f.search, "What each size costs and how it scores."),
    "search_ranks": (
        lambda f: rank_stability(f.search),
        lambda f: f.search and f.search["stability"],
        "How the ranking of sizes moved while they were trained.",
    ),
    "recovery": (recovery_bars, lambda f: f.scores.get("dense"), "Recovery by group of capabilities."),
    "tasks": (task_scores, lambda f: f.scores.get("dense"), "Scores by task."),
    "angular_distance": (angular_distance, lambda f: f.layer_scores, "Angular distance over (start, length)."),
    "loss": (loss_curves, lambda f: any(f.logs.values()), "Cross-entropy while training."),
    "size_and_speed": (size_and_speed, lambda f: f.sizes and len(f.speeds) == len(COLOURS), "Size and speed."),
    "acceptance": (acceptance_bars, lambda f: f.acceptance, "Acceptance of rewritten answers."),
}


def draw(results: RunResults, folder: Path) -> dict[str, str]:
    """Write every picture the run has the facts for, and return their captions by file name."""
    drawn = {}
    for name, (picture, facts, caption) in PICTURES.items():
        if facts(results):
            figure = picture(results)
            figure.savefig(folder / f"{name}.png", dpi=DPI, bbox_inches="tight")
            plt.close(figure)
            drawn[f"{name}.png"] = caption
    return drawn
