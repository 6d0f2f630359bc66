"""Figures of drafts: speed-up by draft length, and acceptance by position."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.evaluation.speculative.summary import one_text
from trl_prune.reporting.plots.style import ARM_COLOURS, BLUE, GREEN, GREY, RED
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


KIND = "greedy"
# Lines and markers that can be told apart without colours.
MARKERS = ("o", "s", "^", "D", "v", "P")
MAX_COLUMNS = 3


def speed_up_by_length(results: RunResults) -> Figure:
    """Draw, for each draft, the measured and predicted speed-up of greedy decoding and the bound, by draft length."""
    speculation = results.speculation
    columns = min(len(speculation), MAX_COLUMNS)
    rows = -(-len(speculation) // columns)
    figure = Figure(figsize=(max(2.9 * columns, 4.2), 2.9 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, (name, one) in zip(grid, speculation.items(), strict=False):
        _draw_speed(axes, name, one["speed"])
    for axes in grid[len(speculation) :]:
        axes.remove()
    grid[0].set_ylabel("speed-up, greedy, one text")
    grid[0].legend(fontsize=7)
    return figure


def _draw_speed(axes: Axes, name: str, speed: dict) -> None:
    prediction = one_text(speed["predicted"][KIND])
    lines = {"bound: all accepted": ("bound", GREY, ":"), "predicted": ("expected", BLUE, "--")}
    lines |= {"formula": ("formula", GREEN, "-.")}
    for label, (key, colour, style) in lines.items():
        points = by_length(prediction[key])
        axes.plot(list(points), list(points.values()), linestyle=style, color=colour, label=label)
    measured = speed["measured"].get(KIND)
    if measured:
        points = by_length(measured)
        value, low, high = (
            np.array([point[key] for point in points.values()], float) for key in ("value", "low", "high")
        )
        errors = np.nan_to_num([value - low, high - value]).clip(min=0)
        axes.errorbar(list(points), value, errors, color=RED, marker="o", markersize=4, capsize=2, label="measured")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(title=f"{name}, cost {one_text(speed['costs'])['cost_ratio']['value']:.2f}", xlabel="proposed tokens")


def by_length(values: dict[str, object]) -> dict[int, object]:
    """Return values by draft length in rising order: JSON's keys are text, and sorted as such."""
    return {int(length): values[length] for length in sorted(values, key=int)}


def acceptance_by_position(results: RunResults) -> Figure:
    """Draw the greedy acceptance of each draft by position in the draft, counted and expected, and in the output."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for index, (name, one) in enumerate(results.speculation.items()):
        colour, marker = ARM_COLOURS[index % len(ARM_COLOURS)], MARKERS[index % len(MARKERS)]
        expected = one["acceptance"]["expected"][KIND]
        length = max(expected["by_length"], key=int)
        _draw_positions(left, expected["by_length"][length], "-", colour=colour, marker=marker, label=name)
        counted = one["acceptance"]["measured"].get(KIND)
        if counted:
            _draw_positions(left, counted[length], ":", colour=colour, marker=marker, label=None)
        ranges = expected["by_output_position"]
        middles = [(part["start"] + part["end"]) / 2 for part in ranges]
        right.plot(middles, [part["alpha"] for part in ranges], color=colour, marker=marker, markersize=4, label=name)
    left.set(xlabel="position in the draft", ylabel="accepted, greedy", ylim=(0, 1.03))
    left.set_title("Of tokens that are judged (dotted: counted)", fontsize=9)
    right.set(xlabel="position in the answer")
    right.set_title("Expected, by position in the answer", fontsize=9)
    left.legend(fontsize=7)
    return figure


def _draw_positions(axes: Axes, rounds: dict, style: str, colour: str, marker: str, label: str | None) -> None:  # noqa: PLR0913
    values = np.array(rounds["by_draft_position"], dtype=float)  # None is NaN, which is not drawn
    options = {"linestyle": style, "color": colour, "marker": marker, "markersize": 4, "label": label}
    axes.plot(np.arange(1, len(values) + 1), values, **options)


def has_drafts(results: RunResults) -> bool:
    """Return whether drafts were judged."""
    return bool(results.speculation)


SPEED_UP_BY_LENGTH = Panel(
    "speed_up_by_draft_length", has_drafts, speed_up_by_length, "Speculative decoding by the length of the draft."
)
ACCEPTANCE_BY_POSITION = Panel(
    "acceptance_by_position", has_drafts, acceptance_by_position, "What the dense model accepts, by position."
)
