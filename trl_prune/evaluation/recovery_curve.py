"""How a held-out loss falls with the tokens of a training, and what more tokens can be expected to bring.

The curve is value(t) = floor + scale * (t + shift)^(-power), that of a training at a constant learning rate. The decay
phase of a schedule takes the loss below it, so that its checkpoints say nothing of the curve's shape; what it gains is
supposed to be the same after any number of tokens.

Few checkpoints fit many curves whose continuations differ. Predictions are therefore an average over all of them, each
weighted by its posterior probability, rather than one best curve.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import chi2, norm, qmc, t

from trl_prune.errors import InputError


# What the metrics of a curve are called in a sentence.
METRICS = {"kl": "divergence from the dense model", "ce": "cross-entropy on held-out answers"}
# Floor, scale, shift and power are four numbers; a fifth point is the first that can contradict them.
MIN_POINTS = 5
# A learning rate of at least this share of the highest one is the highest one.
PEAK = 0.99
# The chance that the interval contains the measured value.
LEVEL = 0.8
# Curves drawn from the posterior: two to this power, as a Sobol sequence has them.
LOG2_DRAWS = 12
# Prior odds of a floor of 0 against one anywhere up to the least value: after a short training it may be far below.
NO_FLOOR = 1 / 3
# Values of each of power and shift in grids that are laid one after the other, each over what has weight in the one
# before. What has weight may be a thin ridge, which the last grid has to resolve.
GRIDS = (60, 60, 160)
# A marginal weight below this share of the largest has none.
NEGLIGIBLE = 1e-4
POWERS = (0.05, 1.5)
# The range of shifts: this share of the tokens of the first checkpoint, this multiple of those of the last.
SHIFTS = (0.01, 3.0)
# Prior of the noise, as a share of the value: an inverse chi-squared worth one observation of this size. It is
# the size that exact data are taken to have.
LEAST_NOISE, NOISE_OBSERVATIONS = 5e-4, 1
# Values are told apart down to this share of the largest.
RESOLUTION = 1e-6
# The relative gain below which more tokens bring little, and the possible gain above which that cannot be told.
LITTLE, MUCH = 0.03, 0.1
# What the sentence about a training tells the gain of.
FACTOR = 4


@dataclass(frozen=True, order=True)
class CurvePoint:
    """A checkpoint of a training.

    Attributes:
        tokens: the tokens that it was trained on; 0 is the untrained model.
        value: its loss on held-out rows, in nats a token.
        learning_rate: of its last step; of the untrained model 0.
    """

    tokens: float
    value: float
    learning_rate: float


@dataclass(frozen=True)
class Prediction:
    """The loss that is expected after some tokens: the median, and the ends of the 80 % interval of a measurement."""

    tokens: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves drawn from their posterior, `(draws,)` each: value(t) = floor + drop * (1 + t / shift)^(-power).

    Attributes:
        floor: the loss after infinitely many tokens.
        drop: how far the untrained model is above the floor; `scale` is drop * shift^power.
        shift: in tokens.
        power: of the decrease.
        noise: standard deviation of a measurement, as a share of the value.
        deviates: of two measurements, of the last checkpoint and of the predicted one, in standard deviations,
            `(2, draws)`.
    """

    floor: np.ndarray
    drop: np.ndarray
    shift: np.ndarray
    power: np.ndarray
    noise: np.ndarray
    deviates: np.ndarray

    def values(self, tokens: float) -> np.ndarray:
        """Return each curve's value without noise, `(draws,)`."""
        return self.floor + self.drop * (1 + tokens / self.shift) ** -self.power


@dataclass(frozen=True, eq=False)
class RecoveryCurve:
    """The curve of a training.

    Attributes:
        points: all its checkpoints, by tokens.
        fitted: those at the highest learning rate and the untrained model, by which the curve was fitted.
        curves: what may be the curve.
    """

    points: tuple[CurvePoint, ...]
    fitted: tuple[CurvePoint, ...]
    curves: Curves = field(repr=False)

    @property
    def last(self) -> CurvePoint:
        """The last checkpoint."""
        return self.points[-1]

    @property
    def start(self) -> CurvePoint | None:
        """The untrained model; None if it was not measured."""
        return self.points[0] if self.points[0].tokens == 0 else None

    @property
    def has_decreased(self) -> bool:
        """Whether the last checkpoint is better than the first one that was measured."""
        return self.last.value < self.points[0].value

    @property
    def decay_gain(self) -> float:
        """How far the last checkpoint is below the curve, in nats; 0 at the highest learning rate."""
        return float(np.median(self._decay_gains()))

    def predict(self, tokens: float) -> Prediction:
        """Return the loss that is expected after a training of this many tokens, with a schedule of the same shape.

        If the last checkpoint is below the curve by the decay of its schedule, so is the prediction.
        """
        curve = self.curves.values(tokens)
        noisy = curve * (1 + self.curves.noise * self.curves.deviates[1])
        values = np.maximum(noisy - self._decay_gains(), 0)
        low, middle, high = np.quantile(values, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        return Prediction(tokens, float(low), float(middle), float(high))

    def _decay_gains(self) -> np.ndarray:
        """Return how far the last checkpoint without its noise is below each curve, `(draws,)`."""
        if self.last in self.fitted:
            return np.zeros_like(self.curves.noise)
        error = self.last.value * self.curves.noise * self.curves.deviates[0]
        return self.curves.values(self.last.tokens) - (self.last.value - error)


def fit_curve(points: Iterable[CurvePoint]) -> RecoveryCurve:
    """Fit the curve of a training.

    Args:
        points: its checkpoints in any order, the untrained model among them; those whose value is not finite are left
            out.

    Raises:
        InputError: fewer than `MIN_POINTS` of them were measured at the highest learning rate.
    """
    measured = tuple(sorted({point for point in points if np.isfinite(point.value)}))
    fitted = _at_constant_rate(measured)
    count = len({point.tokens for point in fitted})
    if count < MIN_POINTS:
        raise InputError(
            f"a recovery curve needs {MIN_POINTS} measured points at a constant learning rate, the untrained model "
            f"among them, and there are {count}; keep the rate constant for longer (`lr_scheduler_type: "
            "warmup_stable_decay` or `constant_with_warmup`), or train for more steps"
        )
    tokens, values = (np.array([getattr(point, name) for point in fitted]) for name in ("tokens", "value"))
    return RecoveryCurve(measured, fitted, _draw(tokens, values))


def _at_constant_rate(points: Sequence[CurvePoint]) -> tuple[CurvePoint, ...]:
    """Return the untrained model and the checkpoints at the highest rate: warm-up lies before, decay after them."""
    peak = max((point.learning_rate for point in points), default=0.0)
    return tuple(point for point in points if point.tokens == 0 or (point.learning_rate >= PEAK * peak and peak > 0))


class _Regressions:
    """The posterior of floor and drop given each power and shift, arrays of one shape `(...)`, and these' weights.

    Given power and shift the model is linear in floor and drop. With a prior that is flat in both and in the logarithm
    of the noise, they have the posterior of an ordinary regression: the floor is Student-t around its least-squares
    estimate; given it, the noise's variance is squares / chi-squared; given both, the drop is normal. With these three
    integrated out, power and shift have the weight determinant^(-1/2) * squares^(-freedom/2), times the share of the
    floor's distribution that lies between 0 and the least value, and with what the prior puts at a floor of 0. The
    prior is flat in `drop`, not in `scale`, whose unit depends on the power.

    A divergence that has fallen tenfold also fluctuates less, so squares are those of relative errors.
    """

    def __init__(self, tokens: np.ndarray, values: np.ndarray, power: np.ndarray, shift: np.ndarray):
        self.weight = np.maximum(values, RESOLUTION * (values.max() or 1.0)) ** -2.0
        self.values = values
        self.shape = (1 + tokens / shift[..., None]) ** -power[..., None]  # (..., points)
        total, self.design = self.weight.sum(), self._sum(self.shape**2)
        mean, mean_value = self._sum(self.shape) / total, np.average(values, weights=self.weight)
        spread = self._sum((self.shape - mean[..., None]) ** 2)
        slope = self._sum((self.shape - mean[..., None]) * (values - mean_value)) / spread
        errors = values - mean_value - slope[..., None] * (self.shape - mean[..., None])
        self.squares = self._sum(errors**2) + NOISE_OBSERVATIONS * LEAST_NOISE**2
        self.freedom = len(values) - 2 + NOISE_OBSERVATIONS
        self.floor = mean_value - slope * mean
        self.floor_design = total * spread / self.design  # 1 / variance of the floor, in variances of the noise
        floor_error = np.sqrt(self.squares / self.freedom / self.floor_design)
        least = 1 / np.sqrt(self.weight.max())
        self.ends = -self.floor / floor_error, (least - self.floor) / floor_error
        self.no_floor = NO_FLOOR * t.pdf(self.ends[0], self.freedom) * (least / floor_error)
        below, above = self._tails()
        share = np.log(np.maximum(above - below + self.no_floor, np.finfo(float).tiny))
        logs = share - np.log(total * spread) / 2 - self.freedom / 2 * np.log(self.squares)
        self.weights = np.exp(logs - logs.max())

    def _sum(self, columns: np.ndarray) -> np.ndarray:
        return np.sum(self.weight * columns, axis=-1)

    def _tails(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the floor's distribution at 0 and at the least value, mirrored where both are in the upper tail."""
        low, high = self.ends
        is_upper = low > 0
        below, above = np.where(is_upper, -high, low), np.where(is_upper, -low, high)
        return t.cdf(below, self.freedom), t.cdf(above, self.freedom)

    def draw(self, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return floor, drop and noise for `(3, ...)` numbers from 0 to 1."""
        deviate = self._floor_deviate(uniform[0])
        floor = self.floor + deviate * np.sqrt(self.squares / self.freedom / self.floor_design)
        squares = self.squares * (1 + deviate**2 / self.freedom)
        noise = np.sqrt(squares / chi2.ppf(uniform[1], self.freedom + 1))
        # The least-squares drop is positive, because the floor is no higher than any value; draws below 0 are cut off.
        drop = self._sum(self.shape * (self.values - floor[..., None])) / self.design
        error = noise / np.sqrt(self.design)
        below = norm.cdf(-drop / error)
        return floor, np.maximum(drop + error * norm.ppf(below + uniform[2] * (1 - below)), 0), noise

    def _floor_deviate(self, uniform: np.ndarray) -> np.ndarray:
        """Return the floor in standard errors from its estimate: in its tail's order, from the floor of 0 on."""
        below, above = self._tails()
        inside = uniform * (above - below + self.no_floor) - self.no_floor
        is_upper = self.ends[0] > 0
        # mirrored, a floor of 0 is the upper end
        tail = np.where(is_upper, above - inside, below + inside)
        deviate = t.ppf(np.clip(tail, below, above), self.freedom) * np.where(is_upper, -1, 1)
        return np.where(inside <= 0, self.ends[0], np.clip(deviate, *self.ends))


def _draw(tokens: np.ndarray, values: np.ndarray) -> Curves:
    """Draw curves from their posterior given `(points,)` measurements, the same ones each time."""
    trained = tokens[tokens > 0]
    ranges = [POWERS, (SHIFTS[0] * trained[0], SHIFTS[1] * trained[-1])]
    for size in GRIDS:
        # evenly spaced in logarithms, in which the prior is flat
        axes = [np.geomspace(*ends, size) for ends in ranges]
        weights = _Regressions(tokens, values, *np.meshgrid(*axes, indexing="ij")).weights
        ranges = _ranges_with_weight(axes, weights)
    # Sobol's sequence is even in all its dimensions, and the same each time; its first point is moved off the corner.
    uniform = qmc.Sobol(6, scramble=False).random_base2(LOG2_DRAWS).T + 2.0 ** -(LOG2_DRAWS + 1)
    cumulative = np.cumsum(weights)
    cells = np.minimum(np.searchsorted(cumulative, uniform[0] * cumulative[-1]), cumulative.size - 1)
    power, shift = (axis[at] for axis, at in zip(axes, np.unravel_index(cells, weights.shape), strict=True))
    floor, drop, noise = _Regressions(tokens, values, power, shift).draw(uniform[1:4])
    return Curves(floor, drop, shift, power, noise, norm.ppf(uniform[4:]))


def _ranges_with_weight(axes: Sequence[np.ndarray], weights: np.ndarray) -> list[tuple[float, float]]:
    """Return the range of each axis that has weight, one step wider at each end, within the same limits."""
    ranges = []
    for index, axis in enumerate(axes):
        marginal = weights.sum(axis=1 - index)
        (inside,) = np.nonzero(marginal > NEGLIGIBLE * marginal.max())
        ranges.append((axis[max(inside[0] - 1, 0)], axis[min(inside[-1] + 1, len(axis) - 1)]))
    return ranges


def expected_gain(curve: RecoveryCurve, factors: Iterable[float]) -> list[Prediction]:
    """Return the losses that are expected of trainings with these multiples of the last checkpoint's tokens."""
    return [curve.predict(factor * curve.last.tokens) for factor in factors]


def describe_gain(curve: RecoveryCurve, metric: str = METRICS["kl"]) -> str:
    """Return in one sentence, without a full stop, what a training has brought and what four times its tokens would.

    Args:
        curve: of the training.
        metric: what the loss is called, as one of `METRICS`.
    """
    last, start = curve.last, curve.start
    reached = f"after {last.tokens:,.0f} tokens the {metric} is {_number(last.value)}"
    if not curve.has_decreased:
        before = "the first measured" if start is None else "the pruned model's"
        return (
            f"{reached}, no lower than {before} {_number(curve.points[0].value)}: this training has not decreased it, "
            "and does not tell what more tokens would bring"
        )
    pruned = "" if start is None else f" (pruned {_number(start.value)})"
    (expected,) = expected_gain(curve, [FACTOR])
    interval = f"{_number(expected.middle)} ({_number(expected.low)} to {_number(expected.high)}, 80 % interval)"
    return f"{reached}{pruned}; {_outlook(last.value, expected)} {interval}"


def _outlook(value: float, expected: Prediction) -> str:
    """Return what to think of an expected loss, as the words before it."""
    likely, possible = ((value - end) / value if value else 0.0 for end in (expected.middle, expected.low))
    if likely >= LITTLE:
        return f"{FACTOR} times the tokens, on new rows, are expected to bring"
    if possible > MUCH:
        return f"whether more tokens help cannot be told: {FACTOR} times as many, on new rows, are expected to bring"
    return f"more tokens bring little: {FACTOR} times as many, on new rows, are expected to bring"


def _number(value: float) -> str:
    return f"{value:#.3g}"
