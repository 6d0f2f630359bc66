"""Figures of quality against cost: recovery of each kind of task, against parameters and against decoding speed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.model_points import KINDS, ModelPoint, front, model_points
from trl_prune.reporting.plots.style import GREY, NARROW, TEXT, ModelStyle, add_legend, legend_height, model_style
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


# Height of the axes of one kind of task, in inches.
AXES_HEIGHT = 2.6
MILLION = 1e6
# Models of one cost are drawn beside each other, this share of the axis apart; further where a label is between them.
APART, LABELS_APART = 0.022, 0.06
PARAMETERS, SPEED = "parameters", "speed"
LABELS = {PARAMETERS: "parameters (millions)", SPEED: "decoded tokens per second"}
Named = tuple[str, ModelPoint]
Placed = tuple[str, ModelPoint, float, float]


def cost(point: ModelPoint, by: str) -> Interval | None:
    """Return a model's place on the axis of `parameters` (millions) or `speed` (tokens per second)."""
    if by == SPEED:
        return point.speed
    millions = point.parameters / MILLION
    return Interval(millions, millions, millions)


def draw_pareto(
    points: Sequence[Named],
    styles: Mapping[str, ModelStyle],
    by: str,
    label: Callable[[ModelPoint], str] | None = None,
) -> Figure:
    """Draw recovery against a cost, one pair of axes for each kind of task, with the front that no model beats.

    Args:
        points: each model's key in the legend, and its point.
        styles: how the models of each key are drawn.
        by: `parameters` or `speed`.
        label: text beside a point; none if None.
    """
    shown = [(key, point) for key, point in points if cost(point, by) is not None]
    kinds = [kind for kind in KINDS if any(kind in point.recovery for _, point in shown)]
    height = AXES_HEIGHT * len(kinds) + legend_height(styles)
    figure = Figure(figsize=(NARROW, height), layout="constrained")
    for axes, kind in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds, strict=True):
        placed = _placed(shown, by, kind, APART if label is None else LABELS_APART)
        _draw_kind(axes, placed, styles, by, kind)
        for _, point, x, y in placed if label is not None else []:
            axes.annotate(label(point), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=TEXT - 2)
    add_legend(figure, axes, "outside lower left")
    return figure


def _draw_kind(axes: Axes, placed: Sequence[Placed], styles: Mapping[str, ModelStyle], by: str, kind: str) -> None:
    _draw_front(axes, [(cost(point, by).value, y) for _, point, _, y in placed], more_is_better=by == SPEED)
    for key, point, x, y in placed:
        style, place = styles[key], cost(point, by)
        axes.errorbar(
            x,
            y,
            yerr=100 * point.recovery[kind].stderr,
            xerr=[[max(0.0, place.value - place.low)], [max(0.0, place.high - place.value)]],
            color=style.colour,
            marker=style.marker,
            markersize=8,
            capsize=3,
            linestyle="none",
            label=key,
        )
    axes.axhline(100, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
    axes.set_title(f"{kind}: % of the dense model", fontsize=TEXT, loc="left")
    axes.set_xlabel(LABELS[by], fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.margins(x=0.15, y=0.15)


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]], more_is_better: bool) -> None:
    sign = -1 if more_is_better else 1
    line = [(sign * x, y) for x, y in front([(sign * x, y) for x, y in points])]
    axes.step(*zip(*line, strict=True), where="post", color=GREY, linewidth=1.2, zorder=1)


def _placed(points: Sequence[Named], by: str, kind: str, apart: float) -> list[Placed]:
    """Return key, point, x and y of each point with a score of a kind; points of one cost lie beside each other."""
    scored = [(key, point) for key, point in points if kind in point.recovery]
    costs = [cost(point, by).value for _, point in scored]
    step = apart * ((max(costs) - min(costs)) or max(costs))
    seen: dict[float, int] = {}
    placed = []
    for (key, point), value in zip(scored, costs, strict=True):
        index = seen.get(value, 0)
        seen[value] = index + 1
        placed.append((key, point, value + index * step, 100 * point.recovery[kind].value))
    return placed


def run_pareto(by: str, results: RunResults) -> Figure:
    """Draw the models of one run."""
    points = [(point.model, point) for point in model_points(results)]
    return draw_pareto(points, {name: model_style(results, name) for name, _ in points}, by)


def has_points(by: str, results: RunResults) -> bool:
    """Return whether a run has models to compare by a cost."""
    return sum(cost(point, by) is not None and bool(point.recovery) for point in model_points(results)) > 1


PARETO_PARAMETERS = Panel(
    "pareto_parameters",
    partial(has_points, PARAMETERS),
    partial(run_pareto, PARAMETERS),
    "Recovery against parameters, with standard errors; the line joins the models that no other beats. Models of one "
    "size are drawn beside each other.",
)
PARETO_SPEED = Panel(
    "pareto_speed",
    partial(has_points, SPEED),
    partial(run_pareto, SPEED),
    "Recovery against decoding speed, with standard errors and the interval of the speed; the line joins the models "
    "that no other beats. Recovered models have the pruned one's shape and so its speed.",
)
