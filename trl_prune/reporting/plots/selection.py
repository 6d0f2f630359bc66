"""Figures of the selected rows: a map of the clusters, and their budgets against their degradation."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import BLUE, GREY, RED, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


# Points of the map; more hide each other.
MAX_POINTS = 4000
# Characters of a cluster's name on an axis.
NAME_LENGTH = 44


def cluster_map(results: RunResults) -> Figure:
    """Draw the rows on the two leading diffusion coordinates, coloured by cluster, with the chosen ones marked."""
    pool = results.selection_pool
    step = max(1, -(-len(pool["row"]) // MAX_POINTS))
    x, y, cluster, chosen = (np.asarray(pool[name])[::step] for name in ("x", "y", "cluster", "selected"))
    figure, axes = new_figure(height=4.6)
    colours = mpl.colormaps["tab20"]
    for index in sorted(set(cluster.tolist())):
        members = cluster == index
        axes.scatter(x[members], y[members], s=6, color=colours(index % 20), alpha=0.4, linewidths=0, label=f"{index}")
    axes.scatter(x[chosen], y[chosen], s=10, facecolors="none", edgecolors="black", linewidths=0.5, label="chosen")
    axes.set(xlabel="diffusion coordinate 1", ylabel="diffusion coordinate 2", title="Rows by cluster")
    axes.legend(fontsize=7, ncols=2, markerscale=1.5, loc="center left", bbox_to_anchor=(1.01, 0.5), title="cluster")
    return figure


def budget_by_degradation(results: RunResults) -> Figure:
    """Draw each cluster's degradation, and its share of the chosen rows beside its share of all rows."""
    clusters = sorted(results.selection["clusters"], key=lambda cluster: -cluster["degradation"])
    names = [f"{cluster['cluster']}: {', '.join(cluster['phrases'][:3])}"[:NAME_LENGTH] for cluster in clusters]
    totals = {key: max(sum(cluster[key] for cluster in clusters), 1) for key in ("rows", "selected")}
    positions = np.arange(len(clusters))
    figure = Figure(figsize=(9.0, 0.36 * len(clusters) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.barh(positions, [cluster["degradation"] for cluster in clusters], color=RED)
    left.set_yticks(positions, names, fontsize=7)
    left.invert_yaxis()
    left.set(xlabel="divergence from the dense model, nats a token", title="Capability degradation score")
    for offset, key, colour, label in ((-0.2, "rows", GREY, "of all rows"), (0.2, "selected", BLUE, "of chosen rows")):
        shares = [100 * cluster[key] / totals[key] for cluster in clusters]
        right.barh(positions + offset, shares, height=0.4, color=colour, label=label)
    right.set(xlabel="%", title="Share of the rows")
    right.legend(fontsize=7)
    return figure


def has_clusters(results: RunResults) -> bool:
    """Return whether the run chose rows by their clusters."""
    return bool(results.selection.get("clusters"))


CLUSTER_MAP = Panel("cluster_map", has_clusters, cluster_map, "The rows in the clusters' coordinates.")
BUDGET_BY_DEGRADATION = Panel(
    "budget_by_degradation", has_clusters, budget_by_degradation, "What pruning broke, and what was chosen."
)
