"""Figure of the arms' training."""

from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import model_colour, new_figure
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


def loss_curves(results: RunResults) -> Figure:
    """Draw the cross-entropy of each arm on its own answers; arms with other answers have other minima."""
    figure, axes = new_figure()
    for name, log in results.logs.items():
        if results.arms[name].metrics["method"] == "local_kd":
            continue  # its loss is a distance of states
        # Arms that distil log the divergence as `loss`, and the cross-entropy as `ce_loss`.
        points = [(entry["step"], entry.get("ce_loss", entry["loss"])) for entry in log if "loss" in entry]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", color=model_colour(results, name), label=name)
    axes.set(
        xlabel="optimizer step",
        ylabel="cross-entropy (nats per token)",
        title="Cross-entropy of each arm on its own answers",
    )
    axes.legend()
    return figure


LOSS = Panel("loss", lambda results: any(results.logs.values()), loss_curves, "Cross-entropy during training.")
