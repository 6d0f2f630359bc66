"""Iterative importance: score and cut in rounds, a share of the way each (2407.14679, section 2.2)."""

from collections.abc import Callable, Mapping
from typing import TypeVar


Model, Ranked = TypeVar("Model"), TypeVar("Ranked")
Sizes = dict[str, int]


def size_schedule(
    dense: Mapping[str, int], target: Mapping[str, int], rounds: int, multiples: Mapping[str, int] | None = None
) -> list[Sizes]:
    """Return the sizes after each round: `d_s - (i + 1) (d_s - d_t) / T` for round i of T, the last being the target.

    Args:
        dense: the dense model's units of each axis.
        target: the wanted units of each axis that is cut.
        rounds: T.
        multiples: what an axis's sizes on the way must be a multiple of (heads: of the KV groups); they are rounded
            up to it.
    """
    steps = []
    for done in range(1, rounds + 1):
        exact = {axis: dense[axis] - done * (dense[axis] - size) / rounds for axis, size in target.items()}
        steps.append({axis: _rounded(size, (multiples or {}).get(axis, 1)) for axis, size in exact.items()})
    return [*steps[:-1], dict(target)]


def _rounded(size: float, multiple: int) -> int:
    return -(-round(size) // multiple) * multiple


def prune_in_rounds(
    model: Model,
    schedule: list[Sizes],
    score: Callable[[Model], Ranked],
    prune: Callable[[Model, Ranked, Sizes], Model],
    after_round: Callable[[int, Model], None] = lambda _round, _model: None,
) -> Model:
    """Return the model after scoring and cutting it once for each entry of a schedule.

    Args:
        model: what `score` reads and `prune` cuts: a loaded model, or a checkpoint folder.
        schedule: the sizes after each round.
        score: the importance of a model's units.
        prune: the model cut to sizes, by its scores.
        after_round: called with each round's number and its model.
    """
    for number, sizes in enumerate(schedule):
        model = prune(model, score(model), sizes)
        after_round(number, model)
    return model
