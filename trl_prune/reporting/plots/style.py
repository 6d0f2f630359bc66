"""Sizes and colours that all figures share."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.reporting.results import RunResults


WIDTH, HEIGHT, DPI = 7.2, 3.8, 130
RED, BLUE, GREEN, GREY = "#c44e52", "#4c72b0", "#55a868", "#b8b8b8"
MODEL_COLOURS = {"dense": "#4a4a4a", "pruned": RED}
ARM_COLOURS = (BLUE, GREEN, "#8172b3", "#ccb974", "#64b5cd", "#dd8452")


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes; sizes are in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def model_colour(results: RunResults, name: str) -> str:
    """Return a model's colour, the same in every figure."""
    arms = list(results.run.recipe.recover)
    return MODEL_COLOURS.get(name) or ARM_COLOURS[arms.index(name) % len(ARM_COLOURS)]
