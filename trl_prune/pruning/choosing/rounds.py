"""Iterative importance: score and prune in several rounds, equally far in each (2407.14679, section 2.2)."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.shapes import complete_sizes


Model, Ranked = TypeVar("Model"), TypeVar("Ranked")
Sizes = dict[str, int]


def round_sizes(target: Mapping[str, int], costs: Costs, rounds: int) -> list[Sizes]:
    """Return the sizes of all cut axes after each round; tied axes follow the others.

    Args:
        target: kept units of each axis that is cut, as `target_sizes` returns them.
        costs: the dense model.
        rounds: number of rounds.

    Raises:
        InputError: the format cannot express the sizes after some round.
    """
    dense = costs.sizes
    multiples = {HEADS: 1 if dense.get(KV_HEADS) == dense[HEADS] else dense.get(KV_HEADS, 1)}
    if costs.heads_divide_hidden:
        multiples[HIDDEN] = dense[HEADS]
    schedule = []
    for sizes in size_schedule(dense, _free_sizes(target, costs), rounds, multiples)[:-1]:
        complete = complete_sizes(sizes, costs)
        if complete is None:
            raise InputError(f"the format cannot express the sizes between rounds ({sizes}); use a single round")
        schedule.append({axis: complete[axis] for axis in target})
    return [*schedule, dict(target)]


def _free_sizes(target: Mapping[str, int], costs: Costs) -> Sizes:
    """Return the sizes of the axes that do not follow another axis of the target."""
    free = dict(target)
    if HEADS in free and costs.sizes.get(KV_HEADS) == costs.sizes[HEADS]:
        free.pop(KV_HEADS, None)
    if HEADS in free and not costs.family.reads_head_dim:
        free.pop(HIDDEN, None)
    if KV_HEADS in free:
        free.pop(HEADS, None)
    return free


def size_schedule(
    dense: Mapping[str, int], target: Mapping[str, int], rounds: int, multiples: Mapping[str, int] | None = None
) -> list[Sizes]:
    """Return the sizes after each round: `d_s - (i + 1) (d_s - d_t) / T` after round i of T, at last the target.

    Args:
        dense: the dense model's units of each axis (d_s).
        target: kept units of each axis that is cut (d_t).
        rounds: T.
        multiples: multiples to which sizes between rounds are rounded up (heads: the number of KV groups).
    """
    schedule = []
    for finished in range(1, rounds + 1):
        exact = {axis: dense[axis] - finished * (dense[axis] - size) / rounds for axis, size in target.items()}
        schedule.append({axis: _rounded_up(size, (multiples or {}).get(axis, 1)) for axis, size in exact.items()})
    return [*schedule[:-1], dict(target)]


def _rounded_up(size: float, multiple: int) -> int:
    return -(-round(size) // multiple) * multiple


def prune_in_rounds(
    model: Model,
    schedule: list[Sizes],
    score: Callable[[Model], Ranked],
    prune: Callable[[Model, Ranked, Sizes], Model],
) -> Model:
    """Return the model after scoring and pruning it once for each entry of a schedule.

    Args:
        model: what `score` reads and `prune` cuts: a loaded model, or a checkpoint folder.
        schedule: the sizes after each round.
        score: returns the scores of a model's units.
        prune: returns the model cut to given sizes by its scores.
    """
    for sizes in schedule:
        model = prune(model, score(model), sizes)
    return model
