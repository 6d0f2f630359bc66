"""How much faster one call is than another, on a machine whose load changes from second to second.

Calls are timed in turn, so that a change of load reaches all of them, and are compared repeat by repeat.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from scipy.stats import bootstrap


Calls = Mapping[str, Callable[[], object]]
Seconds = dict[str, list[float]]

# An interval wider than this share of its value says that other work disturbed the measurement.
BUSY_WIDTH = 0.1
# The least number of repeats with an interval: the least and the largest of n values enclose the true median with the
# chance 1 - 2 / 2^n, which is 97 % of 6 and 94 % of 5, and a bootstrap's interval is no wider.
MIN_REPEATS, MAX_REPEATS = 6, 12
# An interval of this width, as a share of its value, is narrow enough to stop.
NARROW_WIDTH = 0.04


@dataclass(frozen=True)
class Interval:
    """A measured value and its confidence interval.

    Attributes:
        value: the median of the repeats.
        low: the interval's lower end; NaN where there were fewer than `MIN_REPEATS` repeats.
        high: its upper end, or NaN.
        repeats: how often it was measured; None where that is unknown.
    """

    value: float
    low: float
    high: float
    repeats: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, float | None]) -> "Interval":
        """Return the interval that `dataclasses.asdict` made into a dictionary; in JSON unknown ends are null."""
        ends = {end: math.nan if values[end] is None else values[end] for end in ("low", "high")}
        return cls(**values | ends)

    @property
    def is_known(self) -> bool:
        """Whether there were enough repeats for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def relative_width(self) -> float:
        """The interval's width as a share of the value; NaN without an interval."""
        return (self.high - self.low) / self.value

    @property
    def is_busy(self) -> bool:
        """Whether the repeats differ so much that the machine must have had other work."""
        return self.relative_width > BUSY_WIDTH

    def __str__(self) -> str:
        return f"{self.value:.2f}x {self.spread}"

    @property
    def spread(self) -> str:
        """The interval in words, `[low, high]`, or why there is none."""
        if self.is_known:
            return f"[{self.low:.2f}, {self.high:.2f}]"
        return "(too few repeats for an interval)" if self.repeats is None else f"(timed {_times(self.repeats)} only)"


def _times(repeats: int) -> str:
    return "once" if repeats == 1 else f"{repeats} times"


def interleaved_seconds(calls: Calls, repeats: int, warm_up: int = 1) -> Seconds:
    """Return each call's seconds, one value per repeat: A B, B A, A B, ... after `warm_up` untimed repeats.

    The order turns round so that a call gains nothing from coming after another one.
    """
    seconds = {name: [] for name in calls}
    for repeat in islice(timed_repeats(calls, warm_up), repeats):
        for name, value in repeat.items():
            seconds[name].append(value)
    return seconds


def timed_repeats(calls: Calls, warm_up: int = 1) -> Iterator[dict[str, float]]:
    """Yield the seconds of every call, repeat by repeat and without end; see `interleaved_seconds`."""
    for _ in range(warm_up):
        for call in calls.values():
            call()
    order = list(calls)
    while True:
        yield {name: _seconds(calls[name]) for name in order}
        order.reverse()


def _seconds(call: Callable[[], object]) -> float:
    _synchronise()
    start = time.perf_counter()
    call()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def repeat_until_narrow(base: Callable[[], object], other: Callable[[], object], seconds: float) -> Seconds:
    """Return the seconds of two calls in turn, `{base, other}`, repeated until the interval of their ratio is narrow.

    That is within 2 % on either side, after 6 repeats at least. It ends after 12 repeats, or after `seconds`, but
    never before the second repeat; fewer than 6 give a gain without an interval.
    """
    start, timed = time.perf_counter(), {"base": [], "other": []}
    for repeat in islice(timed_repeats({"base": base, "other": other}), MAX_REPEATS):
        for name, value in repeat.items():
            timed[name].append(value)
        count, elapsed = len(timed["base"]), time.perf_counter() - start
        is_narrow = count >= MIN_REPEATS and speed_up(*timed.values()).relative_width <= NARROW_WIDTH
        if is_narrow or (count > 1 and elapsed > seconds):
            break
    return timed


def speed_up(base_seconds: Sequence[float], other_seconds: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return how many times as fast the other call is: the median of `base / other` over repeats.

    The interval is that of a percentile bootstrap over repeats (scipy).
    """
    return median_interval(np.asarray(base_seconds) / np.asarray(other_seconds), confidence)


def median_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Return the median of repeated measurements with its bootstrap interval, where there are 6 of them at least."""
    median = float(np.median(values))
    if len(values) < MIN_REPEATS:
        return Interval(median, float("nan"), float("nan"), len(values))
    options = {"confidence_level": confidence, "method": "percentile", "random_state": 0}
    ends = bootstrap((np.asarray(values),), np.median, **options).confidence_interval
    return Interval(median, float(ends.low), float(ends.high), len(values))
