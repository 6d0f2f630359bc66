"""Figures of the selected rows: a map of the clusters, and their budgets against their degradation."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import BLUE, GREEN, GREY, RED, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


# Points of the map; more hide each other.
MAX_POINTS = 4000
# Characters of a cluster's name on an axis.
NAME_LENGTH = 44
OF_ALL, OF_BUDGET, OF_CHOSEN = "of all rows", "of the budget", "of the chosen rows"
SHARE_COLOURS = {OF_ALL: GREY, OF_BUDGET: BLUE, OF_CHOSEN: GREEN}


def cluster_map(results: RunResults) -> Figure:
    """Draw the rows on the two leading diffusion coordinates, coloured by cluster, with the chosen ones marked."""
    pool = results.selection_pool
    step = max(1, -(-len(pool["row"]) // MAX_POINTS))
    x, y, cluster, chosen = (np.asarray(pool[name])[::step] for name in ("x", "y", "cluster", "selected"))
    figure, axes = new_figure(height=4.6)
    for index in sorted(set(cluster.tolist())):
        members = cluster == index
        axes.scatter(x[members], y[members], s=6, color=_colour(index), alpha=0.4, linewidths=0, label=f"{index}")
    axes.scatter(x[chosen], y[chosen], s=10, facecolors="none", edgecolors="black", linewidths=0.5, label="chosen")
    axes.set(xlabel="diffusion coordinate 1", ylabel="diffusion coordinate 2", title="Rows by cluster")
    axes.legend(fontsize=7, ncols=2, markerscale=1.5, loc="center left", bbox_to_anchor=(1.01, 0.5), title="cluster")
    return figure


def _colour(cluster: int) -> tuple[float, ...]:
    """Return a cluster's colour: the dark ones of the palette's pairs first."""
    return mpl.colormaps["tab20"](2 * cluster % 20 + cluster // 10 % 2)


def budget_by_degradation(results: RunResults) -> Figure:
    """Draw each cluster's degradation, and its share of the budget beside its share of all rows.

    The share of the chosen rows is drawn where it is not the budget's: rows were rejected, or the first selection has
    no budgets by cluster.
    """
    clusters = results.selection["clusters"]  # by falling degradation
    names = [f"{cluster['cluster']}: {', '.join(cluster['phrases'][:3])}"[:NAME_LENGTH] for cluster in clusters]
    positions = np.arange(len(clusters))
    figure = Figure(figsize=(9.0, 0.4 * len(clusters) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    # a float array has NaN for None, which draws no bar
    left.barh(positions, np.array([cluster["degradation"] for cluster in clusters], dtype=float), color=RED)
    left.set_yticks(positions, names, fontsize=7)
    left.invert_yaxis()
    left.set(xlabel="divergence from the dense model, nats a token", title="Capability degradation score")
    bars = shares(clusters)
    height = 0.8 / len(bars)
    for index, (label, values) in enumerate(bars.items()):
        offset = (index - (len(bars) - 1) / 2) * height
        right.barh(positions + offset, values, height=height, color=SHARE_COLOURS[label], label=label)
    right.set(xlabel="%", title="Share of the rows")
    right.legend(fontsize=7)
    return figure


def shares(clusters: list[dict]) -> dict[str, list[float]]:
    """Return each cluster's share in per cent of all rows, of the budget if there is one, and of other chosen rows."""
    columns = {OF_ALL: "rows"}
    if clusters[0]["budget"] is not None:
        columns[OF_BUDGET] = "budget"
    if any(cluster["selected"] != cluster["budget"] for cluster in clusters):
        columns[OF_CHOSEN] = "selected"
    counts = {label: [cluster[name] for cluster in clusters] for label, name in columns.items()}
    return {label: [100 * count / sum(values) for count in values] for label, values in counts.items()}


def has_clusters(results: RunResults) -> bool:
    """Return whether the run chose rows by their clusters, of which there may be one."""
    return bool(results.selection.get("clusters"))


def has_coordinates(results: RunResults) -> bool:
    """Return whether rows have coordinates: a single cluster's have none."""
    return len(results.selection.get("clusters", ())) > 1


CLUSTER_MAP = Panel("cluster_map", has_coordinates, cluster_map, "The rows in the clusters' coordinates.")
BUDGET_BY_DEGRADATION = Panel(
    "budget_by_degradation", has_clusters, budget_by_degradation, "What pruning broke, and what was chosen."
)
