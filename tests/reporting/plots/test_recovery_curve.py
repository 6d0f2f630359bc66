"""The figure of what more tokens bring, of results made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from trl_prune.evaluation.recovery_curve import METRICS
from trl_prune.recipe import ArmSection
from trl_prune.reporting.page import write_pictures
from trl_prune.reporting.plots.recovery_curve import RECOVERY_CURVE, arm_curves, recovery_curves


RATE = 1e-4
TOKENS = np.linspace(0, 40_000, 9).tolist()


def points(scale=0.5):
    return [[tokens, 0.1 + scale * (1 + tokens / 10_000) ** -0.6, RATE if tokens else 0.0] for tokens in TOKENS]


def results_of(curves, init="pruned"):
    arms = {
        name: SimpleNamespace(metrics={"tokens": 1} | ({"curve": curve} if curve else {}))
        for name, curve in curves.items()
    }
    models, sections = ["dense", "pruned", *curves], {name: ArmSection(init=init) for name in curves}
    return SimpleNamespace(arms=arms, run=SimpleNamespace(recipe=SimpleNamespace(models=models, recover=sections)))


def test_measured_points_and_a_band_up_to_ten_times_the_tokens_are_drawn():
    results = results_of({"plain": None, "kd": {"metric": "kl", "points": points()[::-1]}})
    assert RECOVERY_CURVE.is_available(results)
    (axes,) = recovery_curves(results).axes
    assert (axes.get_xscale(), axes.get_title()) == ("log", "Divergence from the dense model")
    measured, expected, untrained = axes.lines
    assert list(measured.get_xdata()) == TOKENS[1:]
    assert list(measured.get_ydata()) == [value for _, value, _ in points()[1:]]
    assert [expected.get_xdata()[end] for end in (0, -1)] == pytest.approx([40_000, 400_000])
    assert list(untrained.get_ydata()) == pytest.approx([0.6, 0.6])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kd", "untrained"]
    (band,) = axes.collections
    low, high = band.get_datalim(axes.transData).intervaly
    assert low < min(expected.get_ydata())
    assert high < 0.6


def test_what_another_arm_has_trained_is_no_untrained_model():
    results = results_of({"kd": {"metric": "kl", "points": points()}}, init="plain")
    (axes,) = recovery_curves(results).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["kd"]


def test_each_metric_has_its_axes_and_each_arm_its_sentence():
    results = results_of({"sft": {"metric": "ce", "points": points(2.0)}, "kd": {"metric": "kl", "points": points()}})
    figure = recovery_curves(results)
    assert [axes.get_title() for axes in figure.axes] == [words.capitalize() for words in METRICS.values()]
    below = " ".join(figure.get_supxlabel().split())
    for name, curve in arm_curves(results).items():
        assert f"{name}: {curve.summary}." in below
    assert "kd: after 40,000 tokens the divergence from the dense model is 0.290" in below


def test_an_arm_whose_curve_cannot_be_fitted_shows_its_points_and_why(tmp_path):
    decaying = [[tokens, value, RATE * (1 - tokens / 50_000)] for tokens, value, _ in points()]
    results = results_of({"kd": {"metric": "kl", "points": decaying[1:]}})
    figure = recovery_curves(results)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [len(TOKENS) - 1]
    assert not figure.axes[0].collections
    assert "kd: a recovery curve needs 5 measured points" in figure.get_supxlabel()
    assert write_pictures([(RECOVERY_CURVE.name, figure)], tmp_path)[RECOVERY_CURVE.name].is_wide


def test_without_a_measured_arm_nothing_is_shown():
    assert not RECOVERY_CURVE.is_available(results_of({}))
    assert not RECOVERY_CURVE.is_available(results_of({"plain": None, "kd": {"metric": "kl", "points": []}}))
