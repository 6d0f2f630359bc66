"""Each evaluated model as a point: what it costs to run, and how much of each kind of task it recovers."""

from collections.abc import Sequence
from dataclasses import dataclass

from trl_prune.evaluation.recovery import Estimate
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.comparisons import comparisons
from trl_prune.reporting.results import RunResults


# Groups of a comparison: one of the two alone says little of the other (OverRep, 2609.06974).
KINDS = ("multiple choice", "generation")


@dataclass(frozen=True)
class ModelPoint:
    """A model's cost and quality.

    Attributes:
        run: a name of its run.
        model: its name in the run.
        parameters: their number.
        speed: decoded tokens per second with an interval; None if it was not measured.
        recovery: share of the dense model's score, by kind of task; kinds without tasks are left out.
    """

    run: str
    model: str
    parameters: int
    speed: Interval | None
    recovery: dict[str, Estimate]


def model_points(results: RunResults, run: str = "") -> list[ModelPoint]:
    """Return the evaluated models of a run as points; a run that was not pruned or evaluated has none."""
    if not results.sizes or not results.scores.get("dense"):
        return []
    return [_point(results, run, name) for name in results.scores]


def _point(results: RunResults, run: str, name: str) -> ModelPoint:
    size_of = "dense" if name == "dense" else "pruned"  # recovered models have the pruned one's shape
    return ModelPoint(
        run,
        name,
        results.sizes[size_of].parameters,
        decode_speeds(results).get(size_of),
        recovery_by_kind(results, name),
    )


def recovery_by_kind(results: RunResults, name: str) -> dict[str, Estimate]:
    """Return a model's recovery over the tasks of each kind, without those that say nothing."""
    compared = comparisons(results)
    if name == "dense":
        return {kind: Estimate(1.0, 0.0) for kind in KINDS if any(kind in one.groups for one in compared.values())}
    groups = compared[name].groups
    return {kind: groups[kind].recovery.recovery for kind in KINDS if kind in groups}


def decode_speeds(results: RunResults) -> dict[str, Interval]:
    """Return the decoded tokens per second of the dense and the pruned model, which were timed in turn.

    The pruned model's interval is that of the ratio of the two, which the load of the machine changes least.
    """
    if results.speed is None:
        return {}
    base, gain = results.speed.dense.decode.value, results.speed.decode
    return {
        "dense": Interval(base, base, base),
        "pruned": Interval(*(base * end for end in (gain.value, gain.low, gain.high)), gain.repeats),
    }


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points, `(cost, value)`, that no cheaper one reaches in value, by rising cost."""
    best, found = float("-inf"), []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if value > best:
            best = value
            found.append((cost, value))
    return found
