"""Which units of each axis a pruned model keeps, ranked by scores or at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.choosing.blocks import SELECTIONS
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS, Family
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.importance.scores import Scores
from trl_prune.pruning.keep import Keep, axis_sizes, check_axis, complete_keep, expert_groups
from trl_prune.pruning.sizes.shapes import heads_per_group


@dataclass(frozen=True)
class Ranking:
    """How units are ranked.

    Attributes:
        layers_by: the entry of SELECTIONS that selects the blocks to remove.
        removed: the blocks to remove where they were chosen otherwise, such as by a measured effect.
        width_by: `activation`, or `random` as a baseline.
        hidden_by: the entry of HIDDEN_SCORES.
        experts_by: the entry of EXPERT_SCORES.
        batch: the aggregation over texts: mean, l2 or var.
        sequence: the aggregation over the tokens of a text, which comes first.
        scope: `layer` ranks units inside each block; `network` sums a unit's score over all blocks first and keeps the
            same indices in every block (2407.14679, section 2.2).
        seed: seed of random choices.
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


# The rankings of 2410.09982 (blocks) and 2407.14679 (the other axes).
PAPERS = Ranking()


# The same, but hidden channels by the residual stream's energy, which won on held-out text (benchmarks/README.md).
MEASURED_BEST = Ranking(hidden_by="energy")


HIDDEN_SCORES: dict[str, Callable[[Scores, Ranking], Tensor]] = {
    "norm": lambda scores, ranking: scores.hidden(ranking.batch, ranking.sequence),
    "energy": lambda scores, _: scores.energy(),
}


# What experts can be ranked by: see `expert_importance`.
EXPERT_SCORES = ("norm", "reap", "frequency", "output")


UNIT_SCORES: dict[str, Callable[[Scores, Ranking], Tensor]] = {
    HIDDEN: lambda scores, ranking: HIDDEN_SCORES[ranking.hidden_by](scores, ranking)[None],
    NEURONS: lambda scores, ranking: scores.neurons(ranking.batch, ranking.sequence),
    HEADS: lambda scores, ranking: scores.heads(ranking.batch, ranking.sequence),
    KV_HEADS: lambda scores, ranking: scores.kv_heads(ranking.batch, ranking.sequence),
    EXPERTS: lambda scores, ranking: scores.expert_importance(ranking.experts_by),
}


def choose_keep(
    scores: Scores,
    sizes: Mapping[str, int],
    config: PreTrainedConfig,
    family: Family,
    ranking: Ranking = PAPERS,
) -> Keep:
    """Return the units of each axis to keep.

    Heads are ranked inside each KV group, and every kept group keeps equally many; where groups are removed, they are
    chosen first, each with its heads. Hidden channels have one list for the whole model.

    Args:
        scores: the dense model's.
        sizes: kept units of each axis; an axis that is left out keeps all, except heads, which follow KV groups.
        config: the dense model's config.
        family: its row.
        ranking: how units are ranked.

    Raises:
        InputError: the scores belong to a model of another shape, a size does not fit the model, or sizes do not fit
            each other.
    """
    dense = axis_sizes(config, family)
    if scores.sizes != dense:
        raise InputError(f"the scores are of a model with {scores.sizes}; this one has {dense}")
    for axis, size in sizes.items():
        check_axis(axis, dense, config, family)
        if not isinstance(size, int) or not 1 <= size <= dense[axis]:
            raise InputError(f"{axis} is {size}; allowed: 1..{dense[axis]} (the model has {dense[axis]})")
    keep: Keep = {}
    if sizes.get(LAYERS, dense[LAYERS]) < dense[LAYERS] or ranking.removed:
        keep[LAYERS] = kept_layers(scores.layers, sizes.get(LAYERS), ranking)
    keep |= _kept_width(scores, sizes, ranking, expert_groups(config)) | _kept_heads(scores, sizes, ranking)
    return complete_keep(keep, config, family)


def kept_layers(scores: LayerScores, size: int | None, ranking: Ranking) -> list[int]:
    """Return the blocks to keep.

    Args:
        scores: of the dense model's blocks.
        size: how many are kept; None where `ranking.removed` decides.
        ranking: how blocks are chosen.

    Raises:
        InputError: `ranking.removed` leaves another number of blocks.
    """
    count = None if size is None else scores.num_layers - size
    if ranking.removed is None:
        removed = SELECTIONS[ranking.layers_by](scores, count, ranking.seed)
    else:
        removed = sorted(ranking.removed)
    if count not in (None, len(removed)):
        raise InputError(f"{LAYERS} is {size}, but {len(removed)} of {scores.num_layers} blocks are to be removed")
    return [layer for layer in range(scores.num_layers) if layer not in removed]


def unit_scores(scores: Scores, axis: str, ranking: Ranking) -> Tensor:
    """Return the scores by which an axis is ranked, `(layers, units)`; hidden channels have one row."""
    if ranking.width_by == "random":
        rows = 1 if axis == HIDDEN else scores.sizes[LAYERS]
        importance = torch.rand((rows, scores.sizes[axis]), generator=torch.Generator().manual_seed(ranking.seed))
    else:
        importance = UNIT_SCORES[axis](scores, ranking)
    if ranking.scope == "network":
        importance = importance.sum(dim=0, keepdim=True).expand_as(importance)
    return importance


def highest_indices(importance: Tensor, count: int) -> list[list[int]]:
    """Return the indices of the `count` highest entries of each row, ascending; ties go to the lower index."""
    order = importance.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return order.sort(dim=-1).values.tolist()


def _kept_width(scores: Scores, sizes: Mapping[str, int], ranking: Ranking, groups: int) -> Keep:
    """Return the kept hidden channels, neurons and experts, equally many of each group of experts."""
    keep: Keep = {}
    for axis in (HIDDEN, NEURONS, EXPERTS):
        if sizes.get(axis, scores.sizes.get(axis)) != scores.sizes.get(axis):
            importance = unit_scores(scores, axis, ranking)
            kept = _kept_of_groups(importance, sizes[axis], groups if axis == EXPERTS else 1)
            keep[axis] = kept[0] if axis == HIDDEN else kept
    return keep


def _kept_of_groups(importance: Tensor, count: int, groups: int) -> list[list[int]]:
    """Return the indices of the highest of each row, equally many of each of some groups of neighbours."""
    if count % groups:
        raise InputError(f"{EXPERTS} is {count}; allowed: multiples of {groups}, the number of groups of experts")
    grouped = importance.unflatten(-1, (groups, -1))
    best, size = highest_indices(grouped, count // groups), grouped.shape[-1]
    return [[group * size + unit for group, units in enumerate(row) for unit in units] for row in best]


def _kept_heads(scores: Scores, sizes: Mapping[str, int], ranking: Ranking) -> Keep:
    """Return the kept query heads and KV groups."""
    dense = scores.sizes
    if all(sizes.get(axis, dense.get(axis)) == dense.get(axis) for axis in (HEADS, KV_HEADS)):
        return {}
    dense_groups = dense.get(KV_HEADS, dense[HEADS])  # without an axis of KV groups each head has its own
    dense_per_group = dense[HEADS] // dense_groups
    if dense_per_group == 1:
        return {HEADS: highest_indices(unit_scores(scores, HEADS, ranking), _equal_size(sizes))}
    num_groups = sizes.get(KV_HEADS, dense_groups)
    per_group = heads_per_group(sizes.get(HEADS, num_groups * dense_per_group), num_groups, dense_per_group)
    kept_groups = highest_indices(unit_scores(scores, KV_HEADS, ranking), num_groups)
    grouped_scores = unit_scores(scores, HEADS, ranking).unflatten(-1, (dense_groups, dense_per_group))
    best_heads = highest_indices(grouped_scores, per_group)
    heads = [
        [group * dense_per_group + head for group in groups for head in best[group]]
        for groups, best in zip(kept_groups, best_heads, strict=True)
    ]
    return {HEADS: heads, KV_HEADS: kept_groups}


def _equal_size(sizes: Mapping[str, int]) -> int:
    """Return the size of heads and KV heads, which is one where each head has its own KV head."""
    heads = sizes.get(HEADS, sizes.get(KV_HEADS))
    if sizes.get(KV_HEADS, heads) != heads:
        raise InputError(
            f"{HEADS} is {heads} and {KV_HEADS} {sizes[KV_HEADS]}; in this model each head has its own KV head"
        )
    return heads
