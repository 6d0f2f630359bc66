"""A judged draft as JSON: what depends on the models alone, and what depends on the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from trl_prune.evaluation.speculative.advice import depth_advice, pays, warnings
from trl_prune.evaluation.speculative.costs import StepCosts
from trl_prune.evaluation.speculative.measurement import Speculation
from trl_prune.evaluation.speculative.prediction import Rounds, best, expected_tokens
from trl_prune.evaluation.timing import Interval


def acceptance_summary(speculation: Speculation) -> dict:
    """Return what the target accepts: expected by kind of text, and counted while decoding."""
    expected = {}
    for kind, found in speculation.expected.items():
        values = {name: value for name, value in asdict(found).items() if name != "rounds"}
        lengths = {
            str(length): _rounds(rounds) | {"formula_tokens_per_call": expected_tokens(found.alpha, length)}
            for length, rounds in found.rounds.items()
        }
        expected[kind] = values | {"by_length": lengths}
    return {
        "parameters": dict(zip(("target", "draft"), speculation.parameters, strict=True)),
        "expected": expected,
        "measured": {
            kind: {str(length): _rounds(rounds) for length, rounds in drafting.rounds.items()}
            for kind, drafting in speculation.measured.items()
        },
        "compared": speculation.compared,
        "differences": [asdict(one) for one in speculation.differences],
    }


def _rounds(rounds: Rounds) -> dict:
    return {
        "tokens": rounds.tokens,
        "calls": rounds.calls,
        "tokens_per_call": rounds.tokens_per_call,
        "by_draft_position": list(rounds.acceptance),
    }


def speed_summary(speculation: Speculation) -> dict:
    """Return costs, predicted and measured speed-ups, the best draft lengths, and what to know before using it."""
    kinds = speculation.decoded
    return {
        "costs": [_by_text(asdict(cost)) for cost in speculation.costs],
        "predicted": {kind: [_predicted(speculation, kind, cost) for cost in speculation.costs] for kind in kinds},
        "measured": {kind: _intervals(found.speed_up) for kind, found in speculation.measured.items()},
        "best_measured": {kind: _fastest(found.speed_up) for kind, found in speculation.measured.items()},
        "pays": {kind: pays(speculation, kind) for kind in kinds},
        "depth": depth_advice(speculation),
        "warnings": warnings(speculation),
    }


def one_text(entries: Sequence[dict]) -> dict:
    """Return the entry for one text at a time of those of `costs` or `predicted`, which are by batch size."""
    return next(entry for entry in entries if entry["batch_size"] == 1)


def _intervals(speeds: Mapping[int, Interval]) -> dict[str, dict[str, float | None]]:
    return {str(length): _interval(speed) for length, speed in speeds.items()}


def _interval(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON, which has no NaN: ends that are not known are None."""
    ends = {} if interval.is_known else {"low": None, "high": None}
    return asdict(interval) | ends


def read_interval(values: Mapping[str, float | None]) -> Interval:
    """Return the interval of its JSON."""
    return Interval.from_dict(values)


def _fastest(speeds: Mapping[int, Interval]) -> int:
    return best({length: speed.value for length, speed in speeds.items()})


def _predicted(speculation: Speculation, kind: str, cost: StepCosts) -> dict:
    prediction = speculation.prediction(kind, cost)
    return {"batch_size": cost.batch_size, "best": prediction.best} | _by_text(asdict(prediction))


def _by_text(values: Mapping[str, object]) -> dict:
    """Return values whose inner keys are text, as JSON has them."""
    return {
        name: {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else value
        for name, value in values.items()
    }
