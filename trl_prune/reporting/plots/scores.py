"""Figure of every unit's score, with the cut marked; it goes beside the pruned checkpoint."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.pruning.choosing.units import UNIT_SCORES, Ranking, unit_scores
from trl_prune.pruning.families import HIDDEN, LAYERS
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, kept_sizes
from trl_prune.reporting.plots.style import BLUE, RED


REMOVED, KEPT = RED, BLUE
PANEL_INCHES, DPI = 3.6, 110


def draw_scores(scores: Scores, keep: Keep, by: Ranking, path: Path) -> None:
    """Draw block influence with the removed blocks marked, and the sorted scores of the units of each other cut axis.

    Args:
        scores: scores of the dense model.
        keep: the complete plan.
        by: how units were ranked.
        path: the picture to write.
    """
    sizes = kept_sizes(keep)
    cut = [axis for axis in UNIT_SCORES if sizes.get(axis, scores.sizes.get(axis)) != scores.sizes.get(axis)]
    figure = Figure(figsize=(PANEL_INCHES * (1 + len(cut)), PANEL_INCHES), layout="constrained")
    block_axes, *unit_axes = figure.subplots(1, 1 + len(cut), squeeze=False)[0]
    _draw_blocks(block_axes, scores, keep[LAYERS])
    for axes, axis in zip(unit_axes, cut, strict=True):
        _draw_units(axes, unit_scores(scores, axis, by), axis, sizes[axis])
    figure.savefig(path, dpi=DPI)


def _draw_blocks(axes: Axes, scores: Scores, kept: list[int]) -> None:
    influence = scores.layers.block_influence().tolist()
    colours = [KEPT if layer in kept else REMOVED for layer in range(len(influence))]
    axes.bar(range(len(influence)), influence, color=colours)
    axes.set(xlabel="block", ylabel="block influence", yscale="log")
    axes.set_title("blocks (red: removed)", fontsize=9)


def _draw_units(axes: Axes, importance: torch.Tensor, axis: str, kept: int) -> None:
    """Draw the sorted scores of every block's units, in multiples of the block's median."""
    ranked = importance.sort(dim=-1, descending=True).values
    ranked = ranked / ranked.median(dim=-1, keepdim=True).values.clamp(min=torch.finfo(ranked.dtype).tiny)
    ranks = range(1, ranked.shape[1] + 1)
    for block in ranked.tolist():
        axes.plot(ranks, block, color=KEPT, alpha=1.0 if axis == HIDDEN else 0.3, linewidth=0.8)
    axes.axvspan(kept + 0.5, ranked.shape[1] + 0.5, color=REMOVED, alpha=0.15)
    axes.set(xlabel="rank", ylabel="score / median", yscale="log")
    axes.set_title(f"{axis} (shaded: removed)", fontsize=9)
