"""Figure of the rewritten answers' acceptance."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from trl_prune.data.rewriting.acceptance import ACCEPTED
from trl_prune.reporting.plots.style import GREEN, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


def acceptance(results: RunResults) -> Figure:
    """Draw, for each capability and each answer type, the share of answers that were accepted or kept, and why."""
    by_type = {f"type: {name}": group for name, group in results.acceptance["by_type"].items() if name != "all"}
    groups = results.acceptance["by_capability"] | by_type
    reasons = {reason for group in groups.values() for reason in group["reasons"]}
    figure, axes = new_figure(height=0.32 * len(groups) + 1.6)
    left = np.zeros(len(groups))
    for index, reason in enumerate(sorted(reasons, key=lambda name: (name != ACCEPTED, name))):
        shares = np.array([100 * group["reasons"].get(reason, 0) / group["answers"] for group in groups.values()])
        colour = GREEN if reason == ACCEPTED else mpl.colormaps["tab20"](2 * index + 1)
        axes.barh(list(groups), shares, left=left, color=colour, label=reason.replace("_", " "))
        left += shares
    axes.invert_yaxis()
    axes.set(xlabel="% of answers", xlim=(0, 100), title="Rewritten answers: accepted, or why the reference was kept")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.18))
    return figure


ACCEPTANCE = Panel("acceptance", lambda results: results.acceptance, acceptance, "Acceptance of rewritten answers.")
