"""Sizes, colours, hatches and markers that all figures share.

Colours are dark enough to be seen on white, and models differ also in hatch and marker, for grey prints.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.reporting.results import RunResults


WIDTH, HEIGHT, DPI = 7.2, 3.8, 130
# A figure this wide shows text of this size (points) at 14 pixels on a phone's screen of 390 pixels.
NARROW, TEXT = 4.2, 12
# Characters of a name of which two fit beside each other there; height of a legend's line, in inches.
SHORT_NAME, LEGEND_LINE = 14, 0.24
RED, BLUE, GREEN, GREY = "#c44e52", "#4c72b0", "#3d8f54", "#8c8c8c"
MODEL_COLOURS = {"dense": "#4a4a4a", "pruned": RED}
ARM_COLOURS = (BLUE, GREEN, "#8172b3", "#98782a", "#2f8fad", "#c4622d")
HATCHES = {"dense": "", "pruned": "////"}
ARM_HATCHES = ("...", "\\\\\\\\", "xxx", "---", "+++", "|||", "ooo", "***")
MARKERS = {"dense": "o", "pruned": "X"}
ARM_MARKERS = ("s", "^", "D", "v", "P", "<", ">", "*", "p", "h")


@dataclass(frozen=True)
class ModelStyle:
    """How a model is drawn."""

    colour: str
    hatch: str
    marker: str


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes; sizes are in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def legend_height(names: Iterable[str]) -> float:
    """Return the height of the legend of a narrow figure, in inches."""
    names = list(names)
    return 0.2 + LEGEND_LINE * -(-len(names) // _columns(names))


def add_legend(figure: Figure, axes: Axes, place: str) -> None:
    """Add a narrow figure's legend outside its axes: each name of one of them once."""
    handles, names = axes.get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    options = {"loc": place, "ncols": _columns(by_name), "fontsize": TEXT, "frameon": False}
    figure.legend(by_name.values(), by_name.keys(), **options)


def _columns(names: Iterable[str]) -> int:
    return 2 if max(map(len, names), default=0) <= SHORT_NAME else 1


def model_colour(results: RunResults, name: str) -> str:
    """Return a model's colour, the same in every figure."""
    return model_style(results, name).colour


def model_style(results: RunResults, name: str) -> ModelStyle:
    """Return how a model is drawn, the same in every figure."""
    recovered = [model for model in results.run.recipe.models if model not in MODEL_COLOURS]
    return named_style(name) if name in MODEL_COLOURS else indexed_style(recovered.index(name))


def named_style(name: str) -> ModelStyle:
    """Return the style of `dense` or `pruned`."""
    return ModelStyle(MODEL_COLOURS[name], HATCHES[name], MARKERS[name])


def indexed_style(index: int) -> ModelStyle:
    """Return the style of the recovered model, or run, of this index; their combinations repeat late."""
    return ModelStyle(*(values[index % len(values)] for values in (ARM_COLOURS, ARM_HATCHES, ARM_MARKERS)))
