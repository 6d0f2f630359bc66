"""The picture of why: what every unit's score was, and where the cut went."""

from pathlib import Path

import matplotlib as mpl
import torch


mpl.use("Agg")

import matplotlib.pyplot as plt

from trl_prune.pruning.choosing.units import UNIT_SCORES, Ranking, unit_scores
from trl_prune.pruning.families import HIDDEN, LAYERS
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, kept_sizes


GONE, STAYS = "#c44e52", "#4c72b0"
PANEL, DPI = 3.6, 110


def draw_scores(scores: Scores, keep: Keep, by: Ranking, path: Path) -> None:
    """Draw block influence with the removed blocks marked, and for each other cut axis its units from best to worst.

    Args:
        scores: of the dense model.
        keep: the plan, complete.
        by: how units were ranked.
        path: the picture's.
    """
    sizes = kept_sizes(keep)
    axes = [axis for axis in UNIT_SCORES if sizes.get(axis, scores.sizes.get(axis)) != scores.sizes.get(axis)]
    figure, row = plt.subplots(1, 1 + len(axes), figsize=(PANEL * (1 + len(axes)), PANEL), layout="constrained")
    panels = list(row) if axes else [row]
    _blocks(panels[0], scores, keep[LAYERS])
    for panel, axis in zip(panels[1:], axes, strict=True):
        _units(panel, unit_scores(scores, axis, by), axis, sizes[axis])
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _blocks(panel: plt.Axes, scores: Scores, kept: list[int]) -> None:
    influence = scores.layers.block_influence().tolist()
    colours = [STAYS if layer in kept else GONE for layer in range(len(influence))]
    panel.bar(range(len(influence)), influence, color=colours)
    panel.set(xlabel="block", ylabel="block influence", yscale="log")
    panel.set_title("blocks (red: removed)", fontsize=9)


def _units(panel: plt.Axes, importance: torch.Tensor, axis: str, kept: int) -> None:
    """Draw every block's units from best to worst, in multiples of the block's median."""
    shares = importance.sort(dim=-1, descending=True).values
    shares = shares / shares.median(dim=-1, keepdim=True).values.clamp(min=torch.finfo(shares.dtype).tiny)
    places = range(1, shares.shape[1] + 1)
    for block in shares.tolist():
        panel.plot(places, block, color=STAYS, alpha=1.0 if axis == HIDDEN else 0.3, linewidth=0.8)
    panel.axvspan(kept + 0.5, shares.shape[1] + 0.5, color=GONE, alpha=0.15)
    panel.set(xlabel="rank", ylabel="score / median", yscale="log")
    panel.set_title(f"{axis} (shaded: removed)", fontsize=9)
