"""Figure of the arms' loss on held-out rows against training tokens, and of what more tokens are expected to bring."""

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.errors import InputError
from trl_prune.evaluation.recovery_curve import (
    METRICS,
    CurvePoint,
    RecoveryCurve,
    describe_gain,
    expected_gain,
    fit_curve,
)
from trl_prune.reporting.plots.style import GREY, HEIGHT, WIDTH, model_style
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


# The key of a trained arm's metrics that holds `{metric, points}`, each point `[tokens, value, learning_rate]`.
CURVE = "curve"
# Predictions reach to this multiple of the trained tokens, and are drawn at so many places.
REACH, PLACES = 10, 25
# Height of a line of the sentences below the axes in inches, and its characters.
LINE_HEIGHT, LINE = 0.17, 104


@dataclass(frozen=True)
class ArmCurve:
    """What was measured of an arm during its training.

    Attributes:
        metric: a key of `METRICS`.
        points: its checkpoints, by tokens; the untrained model has 0.
        fit: the curve through them; None where they do not tell one.
        summary: in one sentence what the training has brought and what more tokens would, or why that is not known.
    """

    metric: str
    points: tuple[CurvePoint, ...]
    fit: RecoveryCurve | None
    summary: str


def arm_curves(results: RunResults) -> dict[str, ArmCurve]:
    """Return the curves of the trained arms that were measured during their training, by arm."""
    return {name: _arm_curve(**values) for name, values in _measured(results).items()}


def _measured(results: RunResults) -> dict[str, dict]:
    """Return what was measured, by arm, without a fit."""
    metrics = {name: result.metrics.get(CURVE) for name, result in results.arms.items()}
    return {name: values for name, values in metrics.items() if values and values["points"]}


def _arm_curve(metric: str, points: Iterable[Iterable[float]]) -> ArmCurve:
    measured = tuple(sorted(CurvePoint(*point) for point in points))
    try:
        fit = fit_curve(measured)
    except InputError as error:
        return ArmCurve(metric, measured, None, str(error))
    return ArmCurve(metric, measured, fit, describe_gain(fit, METRICS[metric]))


def recovery_curves(results: RunResults) -> Figure:
    """Draw the measured losses, and the expected ones up to ten times the tokens; one pair of axes for each metric.

    Below the axes stand the arms' sentences.
    """
    curves = arm_curves(results)
    metrics = [metric for metric in METRICS if any(curve.metric == metric for curve in curves.values())]
    text = "\n".join(fill(f"{name}: {curve.summary}.", LINE) for name, curve in curves.items())
    height = HEIGHT * len(metrics) + LINE_HEIGHT * (text.count("\n") + 1)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    for axes, metric in zip(figure.subplots(len(metrics), 1, squeeze=False)[:, 0], metrics, strict=True):
        _draw_metric(axes, results, {name: curve for name, curve in curves.items() if curve.metric == metric})
        axes.set(xlabel="training tokens", ylabel="nats a token", title=METRICS[metric].capitalize())
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8)
    return figure


def _draw_metric(axes: Axes, results: RunResults, curves: dict[str, ArmCurve]) -> None:
    axes.set_xscale("log")
    for name, curve in curves.items():
        style = model_style(results, name)
        trained = [(point.tokens, point.value) for point in curve.points if point.tokens > 0]
        if trained:
            axes.plot(*zip(*trained, strict=True), style.marker, color=style.colour, label=name)
        if curve.fit is not None:
            _draw_expected(axes, curve.fit, style.colour)
    # Arms that start from the same model share its line; what another arm has trained is no untrained model.
    arms = results.run.recipe.recover
    untrained = {
        curve.points[0].value for name, curve in curves.items() if _has_start(curve) and not arms[name].starts_from_arm
    }
    for index, value in enumerate(sorted(untrained)):
        label = "untrained" if index == 0 else None
        axes.axhline(value, color=GREY, linestyle="--", linewidth=0.8, label=label)
    axes.legend(fontsize=8)


def _has_start(curve: ArmCurve) -> bool:
    return curve.points[0].tokens == 0


def _draw_expected(axes: Axes, curve: RecoveryCurve, colour: str) -> None:
    expected = expected_gain(curve, np.geomspace(1, REACH, PLACES).tolist())
    tokens, low, middle, high = (
        [getattr(one, name) for one in expected] for name in ("tokens", "low", "middle", "high")
    )
    axes.plot(tokens, middle, color=colour)
    axes.fill_between(tokens, low, high, color=colour, alpha=0.2, linewidth=0)


RECOVERY_CURVE = Panel(
    "recovery_curve",
    _measured,
    recovery_curves,
    "Loss on held-out rows against training tokens, and what is expected of more tokens with a schedule of the same "
    "shape: median and 80 % interval. Dashed: the untrained model. Arms with other data or another seed have other "
    "held-out rows.",
)
