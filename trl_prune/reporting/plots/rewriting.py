"""Figure of the rewritten answers' acceptance."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import GREEN, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


def acceptance(results: RunResults) -> Figure:
    """Draw, for each capability, the share of rewritten answers with each verdict."""
    groups = results.acceptance
    verdicts = {verdict for group in groups.values() for verdict in group["verdicts"]}
    figure, axes = new_figure(height=0.32 * len(groups) + 1.6)
    left = np.zeros(len(groups))
    for index, verdict in enumerate(sorted(verdicts, key=lambda name: (name != "accepted", name))):
        shares = np.array([100 * group["verdicts"].get(verdict, 0) / group["rows"] for group in groups.values()])
        colour = GREEN if verdict == "accepted" else mpl.colormaps["tab20"](2 * index + 1)
        axes.barh(list(groups), shares, left=left, color=colour, label=verdict)
        left += shares
    axes.invert_yaxis()
    axes.set(xlabel="% of rows", xlim=(0, 100), title="Rewritten answers: accepted, or why the reference was kept")
    axes.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.18))
    return figure


ACCEPTANCE = Panel("acceptance", lambda results: results.acceptance, acceptance, "Acceptance of rewritten answers.")
