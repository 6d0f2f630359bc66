"""Which units of each axis stay, ranked by scores or at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.choosing.blocks import SELECTIONS
from trl_prune.pruning.families import EXPERTS, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS, Family
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, axis_sizes, check_axis, complete_keep


@dataclass(frozen=True)
class Ranking:
    """How units are ranked.

    Attributes:
        layers_by: the entry of SELECTIONS that chooses blocks.
        removed: the blocks to remove where something else chose them, such as a measured effect.
        width_by: `activation`, or `random` (what a score has to beat).
        hidden_by: the entry of HIDDEN_SCORES.
        experts_by: the entry of EXPERT_SCORES.
        batch: the aggregation over texts: mean, l2 or var.
        sequence: the aggregation over a text's tokens, made first.
        scope: `layer` ranks units inside each block; `network` sums a unit's score over blocks first and keeps the
            same indices everywhere (2407.14679, section 2.2).
        seed: for what is random.
    """

    layers_by: str = "angular_distance"
    removed: Sequence[int] | None = None
    width_by: str = "activation"
    hidden_by: str = "norm"
    experts_by: str = "norm"
    batch: str = "l2"
    sequence: str = "mean"
    scope: str = "layer"
    seed: int = 0


PAPERS = Ranking()


# As the papers, but hidden channels by the stream's energy, which won on held-out text (benchmarks/README.md).
MEASURED_BEST = Ranking(hidden_by="energy")


HIDDEN_SCORES: dict[str, Callable[[Scores, Ranking], Tensor]] = {
    "norm": lambda scores, by: scores.hidden(by.batch, by.sequence),
    "energy": lambda scores, _: scores.energy(),
}


EXPERT_SCORES: dict[str, Callable[[Scores], Tensor]] = {
    "norm": lambda scores: scores.expert_norms(),
    "weighted_norm": lambda scores: scores.expert_norms(weighted=True),
}


UNIT_SCORES: dict[str, Callable[[Scores, Ranking], Tensor]] = {
    HIDDEN: lambda scores, by: HIDDEN_SCORES[by.hidden_by](scores, by)[None],
    NEURONS: lambda scores, by: scores.neurons(by.batch, by.sequence),
    HEADS: lambda scores, by: scores.heads(by.batch, by.sequence),
    GROUPS: lambda scores, by: scores.groups(by.batch, by.sequence),
    EXPERTS: lambda scores, by: EXPERT_SCORES[by.experts_by](scores),
}


def choose_keep(
    scores: Scores,
    sizes: Mapping[str, int],
    config: PreTrainedConfig,
    family: Family,
    by: Ranking = PAPERS,
) -> Keep:
    """Return the units of each axis to keep.

    Heads are ranked inside each KV group, equally many of each group stay; where groups go too, they go first, each
    with its heads. Hidden channels have one list for the whole model.

    Args:
        scores: of the dense model.
        sizes: how many units of each axis stay; an axis left out stays whole, but for heads, which go with groups.
        config: the dense model's config.
        family: its row.
        by: how units are ranked.

    Raises:
        InputError: the scores are of another shape of model, a size does not fit the model, or sizes do not fit each
            other.
    """
    dense = axis_sizes(config, family)
    if scores.sizes != dense:
        raise InputError(f"the scores are of a model with {scores.sizes}; this one has {dense}")
    for axis, size in sizes.items():
        check_axis(axis, dense, config, family)
        _check_size(axis, size, dense[axis])
    keep: Keep = {}
    if sizes.get(LAYERS, dense[LAYERS]) < dense[LAYERS] or by.removed:
        keep[LAYERS] = kept_layers(scores.layers, sizes.get(LAYERS), by)
    for axis in (HIDDEN, NEURONS, EXPERTS):
        if sizes.get(axis, dense.get(axis)) != dense.get(axis):
            kept = highest(unit_scores(scores, axis, by), sizes[axis])
            keep[axis] = kept[0] if axis == HIDDEN else kept
    return complete_keep(keep | _kept_heads(scores, sizes, by), config, family)


def _check_size(axis: str, size: int, dense: int) -> None:
    if not isinstance(size, int) or not 1 <= size <= dense:
        raise InputError(f"{axis} is to be {size}; allowed: 1..{dense} (the model has {dense})")


def kept_layers(scores: LayerScores, size: int | None, by: Ranking) -> list[int]:
    """Return the blocks that stay."""
    count = None if size is None else scores.num_layers - size
    removed = SELECTIONS[by.layers_by](scores, count, by.seed) if by.removed is None else sorted(by.removed)
    if count not in (None, len(removed)):
        raise InputError(f"{LAYERS} is to be {size}, but {len(removed)} of {scores.num_layers} blocks are to go")
    return [layer for layer in range(scores.num_layers) if layer not in removed]


def unit_scores(scores: Scores, axis: str, by: Ranking) -> Tensor:
    """Return what an axis is ranked by, `(layers, units)`; hidden channels have one row."""
    if by.width_by == "random":
        rows = 1 if axis == HIDDEN else scores.sizes[LAYERS]
        importance = torch.rand((rows, scores.sizes[axis]), generator=torch.Generator().manual_seed(by.seed))
    else:
        importance = UNIT_SCORES[axis](scores, by)
    if by.scope == "network":
        importance = importance.sum(dim=0, keepdim=True).expand_as(importance)
    return importance


def highest(importance: Tensor, count: int) -> list[list[int]]:
    """Return in each row the growing indices of its highest entries; of equals the first."""
    order = importance.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return order.sort(dim=-1).values.tolist()


def _kept_heads(scores: Scores, sizes: Mapping[str, int], by: Ranking) -> Keep:
    if all(sizes.get(axis, scores.sizes.get(axis)) == scores.sizes.get(axis) for axis in (HEADS, GROUPS)):
        return {}
    total = scores.sizes.get(GROUPS, scores.sizes[HEADS])  # without an axis of groups each head is its own
    each = scores.sizes[HEADS] // total
    if each == 1:
        return {HEADS: highest(unit_scores(scores, HEADS, by), _only_size(sizes))}
    groups = sizes.get(GROUPS, total)
    left = heads_a_group(sizes.get(HEADS, groups * each), groups, each)
    kept = highest(unit_scores(scores, GROUPS, by), groups)
    inside = highest(unit_scores(scores, HEADS, by).unflatten(-1, (total, each)), left)
    heads = [
        [group * each + head for group in of for head in row[group]] for of, row in zip(kept, inside, strict=True)
    ]
    return {HEADS: heads, GROUPS: kept}


def _only_size(sizes: Mapping[str, int]) -> int:
    told = [sizes[axis] for axis in (HEADS, GROUPS) if axis in sizes]
    if any(one != other for one, other in pairwise(told)):
        raise InputError(
            f"{HEADS} is to be {told[0]} and {GROUPS} {told[1]}; in this model each head has its own KV head"
        )
    return told[0]


def heads_a_group(heads: int, groups: int, each: int) -> int:
    """Return how many heads of each KV group stay.

    Args:
        heads: how many stay in all.
        groups: how many KV groups stay.
        each: how many heads a group has.

    Raises:
        InputError: they do not spread evenly.
    """
    left, rest = divmod(heads, groups)
    if rest or not 1 <= left <= each:
        allowed = ", ".join(str(groups * count) for count in range(1, each + 1))
        raise InputError(f"{HEADS} is to be {heads} in {groups} KV groups of up to {each}; allowed: {allowed}")
    return left
