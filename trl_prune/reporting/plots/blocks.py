"""Figure of the angular distances between blocks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import HEIGHT, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


def angular_distance(results: RunResults) -> Figure:
    """Draw the angular distance of every run of blocks, with the removed blocks marked (2410.09982)."""
    distance = results.layer_scores.angular_distance().numpy()
    layers = len(distance) - 1
    grid = np.full((layers, layers), np.nan)
    for length in range(1, layers + 1):
        grid[length - 1, : layers - length + 1] = distance.diagonal(length)
    figure, axes = new_figure(height=HEIGHT + 0.6)
    extent = (-0.5, layers - 0.5, 0.5, layers + 0.5)
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis", extent=extent)
    figure.colorbar(image, label="angular distance")
    _mark_removed(axes, results.removed)
    axes.set(
        xlabel="first block of the run",
        ylabel="blocks in the run",
        title="Angular distance between input and output of a run of blocks",
    )
    return figure


def _mark_removed(axes: Axes, removed: list[int]) -> None:
    if not removed:
        return
    is_one_run = removed == list(range(removed[0], removed[0] + len(removed)))
    points = [(removed[0], len(removed))] if is_one_run else [(index, 1) for index in removed]
    label = f"removed: {removed[0]}-{removed[-1]}" if is_one_run else f"removed: {removed}"
    outline = {"marker": "s", "s": 70, "facecolors": "none", "edgecolors": "red", "linewidths": 2}
    axes.scatter(*zip(*points, strict=True), label=label, **outline)
    axes.legend(loc="upper right")


ANGULAR_DISTANCE = Panel(
    "angular_distance",
    lambda results: results.layer_scores,
    angular_distance,
    "Angular distance of every run of blocks, by its first block and its length.",
)
