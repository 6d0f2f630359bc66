"""Oracles: the power law that the points were drawn from, and how often intervals contain it."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.errors import InputError
from trl_prune.evaluation.recovery_curve import (
    LEVEL,
    METRICS,
    CurvePoint,
    describe_gain,
    expected_gain,
    fit_curve,
)


TOKENS, RATE = 40_000.0, 2e-4
TRUTH = {"floor": 0.1, "drop": 0.5, "shift": 10_000.0, "power": 0.6}


def power_law(tokens, floor, drop, shift, power):
    return floor + drop * (1 + tokens / shift) ** -power


def measured(count, truth=TRUTH, noise=0.0, seed=0):
    """Return the untrained model and `count` checkpoints at a constant rate, with noise as a share of the value."""
    tokens = np.linspace(0, TOKENS, count + 1)
    errors = 1 + noise * np.random.default_rng(seed).standard_normal(count + 1)
    values = power_law(tokens, **truth) * errors
    return [CurvePoint(*point, RATE if point[0] else 0.0) for point in zip(tokens.tolist(), values, strict=True)]


def width(prediction):
    return prediction.high - prediction.low


@settings(max_examples=8, deadline=None)
@given(
    st.integers(5, 20),
    st.builds(
        lambda floor, drop, shift, power: {"floor": floor * drop, "drop": drop, "shift": shift, "power": power},
        st.just(0.0) | st.floats(0.05, 0.6),
        st.floats(0.1, 3),
        st.floats(0.03, 1).map(lambda share: share * TOKENS),
        st.floats(0.15, 0.8),
    ),
)
def test_a_power_law_without_noise_is_predicted(count, truth):
    curve = fit_curve(measured(count, truth))
    # Without a floor, curves with a low one are nearly the same as far as they were measured.
    for factor, error in ((2, 0.015), (4, 0.02 if truth["floor"] else 0.05)):
        prediction = curve.predict(factor * TOKENS)
        assert prediction.middle == pytest.approx(power_law(factor * TOKENS, **truth), rel=error)
    assert curve.decay_gain == 0


@pytest.mark.parametrize("seed", range(3))
def test_many_points_without_noise_leave_little_open(seed):
    draw = np.random.default_rng(seed)
    truth = {"floor": draw.uniform(0.05, 0.3), "drop": draw.uniform(0.3, 2), "shift": 6000, "power": 0.7}
    prediction = fit_curve(measured(200, truth)).predict(4 * TOKENS)
    assert prediction.middle == pytest.approx(power_law(4 * TOKENS, **truth), rel=0.01)
    assert width(prediction) < 0.04 * prediction.middle


@pytest.mark.parametrize(
    ("count", "noise"),
    [pytest.param(6, 0.01, marks=pytest.mark.slow), pytest.param(12, 0.005, marks=pytest.mark.slow), (12, 0.02)],
)
def test_intervals_contain_the_truth_about_as_often_as_they_say(count, noise):
    draw = np.random.default_rng(count)
    hits = []
    for seed in range(60):
        drop = draw.uniform(0.2, 3)
        truth = {"drop": drop, "floor": drop * max(0.0, draw.uniform(-0.15, 0.5))}
        truth |= {"shift": TOKENS * 10 ** draw.uniform(-1.5, 0.3), "power": 10 ** draw.uniform(-1, 0.15)}
        prediction = fit_curve(measured(count, truth, noise, seed)).predict(4 * TOKENS)
        hits.append(prediction.low <= power_law(4 * TOKENS, **truth) <= prediction.high)
    assert LEVEL - 0.1 <= np.mean(hits) <= LEVEL + 0.15, np.mean(hits)


def test_points_of_warm_up_and_decay_do_not_change_the_curve():
    points = measured(8, noise=0.01)
    plain = fit_curve(points)
    warm_up = CurvePoint(500.0, 0.9, RATE / 4)
    decay = [CurvePoint(TOKENS * 1.1, 0.27, RATE / 2), CurvePoint(TOKENS * 1.2, 0.24, 0.0)]
    curve = fit_curve([*points, warm_up, *decay])
    assert curve.fitted == plain.fitted
    assert np.array_equal(curve.curves.values(1e6), plain.curves.values(1e6))
    assert plain.decay_gain == 0
    # The decay's gain is what the last point is below the curve, and predictions are lower by it.
    assert curve.decay_gain == pytest.approx(plain.predict(TOKENS * 1.2).middle - 0.24, abs=0.003)
    lower = plain.predict(4 * TOKENS).middle - curve.predict(4 * TOKENS).middle
    assert lower == pytest.approx(curve.decay_gain, abs=0.01)


def test_a_decayed_checkpoint_is_where_its_own_prediction_is():
    truth = power_law(1.25 * TOKENS, **TRUTH) - 0.05
    curve = fit_curve([*measured(12, noise=0.005), CurvePoint(1.25 * TOKENS, truth, 0.0)])
    prediction = curve.predict(1.25 * TOKENS)
    assert prediction.low < truth < prediction.high
    assert prediction.middle == pytest.approx(truth, rel=1e-3)
    assert width(prediction) < 0.04 * truth


@pytest.mark.slow
def test_intervals_after_a_decay_contain_a_measurement_about_as_often_as_they_say():
    end, gain, noise = 1.25 * TOKENS, 0.05, 0.01
    hits = []
    for seed in range(60):
        last, again = (
            (power_law(tokens, **TRUTH) - gain) * (1 + noise * error)
            for tokens, error in zip((end, 4 * end), np.random.default_rng([seed, 1]).standard_normal(2), strict=True)
        )
        prediction = fit_curve([*measured(10, noise=noise, seed=seed), CurvePoint(end, last, 0.0)]).predict(4 * end)
        hits.append(prediction.low <= again <= prediction.high)
    assert LEVEL - 0.1 <= np.mean(hits) <= LEVEL + 0.15


def test_neither_order_nor_repeats_nor_time_matter():
    points = [*measured(9, noise=0.02), CurvePoint(TOKENS * 1.2, 0.24, 0.0)]
    shuffled = random.Random(1).sample([*points, points[3]], len(points) + 1)
    assert expected_gain(fit_curve(shuffled), (2, 4)) == expected_gain(fit_curve(points), (2, 4))


def test_values_and_tokens_have_no_preferred_unit():
    points = measured(9, noise=0.02)
    scaled = [CurvePoint(point.tokens * 1e6, point.value * 7, point.learning_rate) for point in points]
    one, other = fit_curve(points).predict(4 * TOKENS), fit_curve(scaled).predict(4e6 * TOKENS)
    assert [other.low, other.middle, other.high] == pytest.approx([7 * one.low, 7 * one.middle, 7 * one.high])


def test_more_points_and_nearer_ones_are_surer():
    few, many = (
        np.median([width(fit_curve(measured(count, noise=0.01, seed=seed)).predict(4 * TOKENS)) for seed in range(9)])
        for count in (6, 60)
    )
    assert many < 0.8 * few
    gains = expected_gain(fit_curve(measured(8, noise=0.01)), (1.1, 2, 4, 10))
    assert [gain.tokens for gain in gains] == [factor * TOKENS for factor in (1.1, 2, 4, 10)]
    assert [width(gain) for gain in gains] == sorted(width(gain) for gain in gains)
    assert [gain.middle for gain in gains] == sorted((gain.middle for gain in gains), reverse=True)
    assert all(0 <= gain.low <= gain.middle <= gain.high for gain in gains)


def flat(value, count=10, noise=0.0):
    draw = np.random.default_rng(0)
    values = value * (1 + noise * draw.standard_normal(count + 1))
    return [CurvePoint(n * TOKENS / count, one, RATE if n else 0.0) for n, one in enumerate(values.tolist())]


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_a_flat_curve_stays_flat(noise):
    prediction = fit_curve(flat(0.5, noise=noise)).predict(4 * TOKENS)
    assert prediction.middle == pytest.approx(0.5, rel=0.01)
    assert width(prediction) < 0.02


def test_a_divergence_of_zero_stays_zero():
    assert fit_curve(flat(0.0)).predict(4 * TOKENS).high < 1e-5


@pytest.mark.parametrize(
    ("points", "count"),
    [
        ([], 0),
        (measured(3), 4),
        ([CurvePoint(point.tokens, point.value, RATE * (1 - point.tokens / TOKENS)) for point in measured(9)], 1),
        ([CurvePoint(point.tokens, float("nan"), RATE) for point in measured(9)], 0),
        ([CurvePoint(0.0, 0.5 + n / 100, RATE) for n in range(9)], 1),
    ],
    ids=["none", "few", "linear decay", "diverged", "one number of tokens"],
)
def test_too_few_points_at_a_constant_rate_are_said(points, count):
    with pytest.raises(InputError, match=f"needs 5 .* there are {count}; .*warmup_stable_decay"):
        fit_curve(points)


def test_the_sentence_says_what_was_reached_and_what_is_expected():
    curve = fit_curve(measured(12))
    expected = curve.predict(4 * TOKENS)
    assert describe_gain(curve) == (
        "after 40,000 tokens the divergence from the dense model is 0.290 (pruned 0.600); 4 times the tokens, on new "
        f"rows, are expected to bring {expected.middle:.3f} ({expected.low:.3f} to {expected.high:.3f}, 80 % interval)"
    )
    without_start = fit_curve(measured(12)[1:])
    assert "pruned" not in describe_gain(without_start)
    assert "the cross-entropy on held-out answers is 0.290" in describe_gain(curve, METRICS["ce"])


def test_the_sentence_says_when_more_tokens_bring_little():
    settled = {"floor": 0.5, "drop": 0.4, "shift": 500.0, "power": 1.4}
    assert "; more tokens bring little: 4 times as many, on new rows, are expected to bring 0.5" in describe_gain(
        fit_curve(measured(20, settled, noise=0.001))
    )


def test_the_sentence_says_when_nothing_can_be_told():
    noisy = fit_curve([*flat(0.5, 8, noise=0.1), CurvePoint(TOKENS * 1.1, 0.4, RATE)])
    assert "; whether more tokens help cannot be told: " in describe_gain(noisy)


def test_a_training_that_makes_the_model_worse_is_no_promise():
    points = [CurvePoint(n * 1000.0, 0.6 + 0.05 * n, RATE if n else 0.0) for n in range(8)]
    curve = fit_curve(points)
    assert not curve.has_decreased
    sentence = describe_gain(curve)
    assert "is 0.950, no lower than the pruned model's 0.600: this training has not decreased it" in sentence
    assert "expected" not in sentence
    assert all(np.isfinite([gain.low, gain.middle, gain.high]).all() for gain in expected_gain(curve, (2, 10)))
    assert "no lower than the first measured 0.650" in describe_gain(fit_curve(points[1:]))
