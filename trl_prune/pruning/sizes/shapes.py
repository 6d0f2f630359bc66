"""Shapes: the sizes of all axes of a pruned model, as far as the family's format can express them."""

from collections.abc import Mapping

from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.keep import PER_LAYER_AXES, Keep, expert_groups
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.formula import Sizes


# In place of `intermediate_size`: its multiple of `hidden_size` (the MLP factor of 2407.14679).
MLP_RATIO = "mlp_ratio"


def complete_sizes(sizes: Mapping[str, float], costs: Costs) -> dict[str, int] | None:
    """Return the sizes of all axes, or None where the format cannot express them.

    An axis that is left out keeps its dense size or follows another one: KV heads follow heads where each head has its
    own, heads follow KV heads, and heads and hidden channels follow each other where the format ties them.

    Args:
        sizes: the sizes of some axes; `mlp_ratio` may stand for `intermediate_size`.
        costs: the dense model.
    """
    dense = costs.sizes
    complete = dict(dense)
    if HEADS in dense:  # not where only blocks can be cut
        complete[HEADS] = _num_heads(sizes, costs)
        if dense.get(KV_HEADS) == dense[HEADS]:
            complete[KV_HEADS] = complete[HEADS]
        if not costs.family.reads_head_dim:
            complete[HIDDEN] = complete[HEADS] * (dense[HIDDEN] // dense[HEADS])
    complete |= {axis: size for axis, size in sizes.items() if axis != MLP_RATIO}
    if MLP_RATIO in sizes:
        complete[NEURONS] = round(sizes[MLP_RATIO] * complete[HIDDEN])
    return complete if _is_expressible(complete, costs) else None


def _num_heads(sizes: Mapping[str, float], costs: Costs) -> int:
    dense = costs.sizes
    if HEADS not in sizes and KV_HEADS in sizes:
        return sizes[KV_HEADS] * (dense[HEADS] // dense[KV_HEADS])
    if HEADS not in sizes and HIDDEN in sizes and not costs.family.reads_head_dim:
        return sizes[HIDDEN] * dense[HEADS] // dense[HIDDEN]
    return sizes.get(HEADS, dense[HEADS])


def _is_expressible(sizes: Sizes, costs: Costs) -> bool:
    dense, config = costs.sizes, costs.config
    smaller = all(0 < sizes[axis] <= size for axis, size in dense.items())
    groups = expert_groups(config)
    routed = EXPERTS not in sizes or (sizes[EXPERTS] >= config.num_experts_per_tok and sizes[EXPERTS] % groups == 0)
    return smaller and routed and (HEADS not in sizes or _heads_fit(sizes, costs))


def _heads_fit(sizes: Sizes, costs: Costs) -> bool:
    """Return whether heads, KV groups and hidden channels fit each other."""
    dense, heads, groups = costs.sizes, sizes[HEADS], sizes.get(KV_HEADS, 1)
    even = heads % groups == 0 and heads // groups <= dense[HEADS] // dense.get(KV_HEADS, 1)
    tied = costs.family.reads_head_dim or heads * dense[HIDDEN] == sizes[HIDDEN] * dense[HEADS]
    divided = not costs.heads_divide_hidden or sizes.get(HIDDEN, costs.config.hidden_size) % heads == 0
    return even and tied and divided


def heads_per_group(heads: int, groups: int, dense_heads_per_group: int) -> int:
    """Return how many heads of each KV group are kept.

    Args:
        heads: kept heads of a block.
        groups: kept KV groups of a block.
        dense_heads_per_group: heads of a KV group in the dense model.

    Raises:
        InputError: the heads cannot be divided equally among the groups.
    """
    kept, rest = divmod(heads, groups)
    if rest or not 1 <= kept <= dense_heads_per_group:
        allowed = ", ".join(str(groups * count) for count in range(1, dense_heads_per_group + 1))
        raise InputError(
            f"{HEADS} is {heads}, in {groups} KV groups of up to {dense_heads_per_group} heads; allowed: {allowed}"
        )
    return kept


def first_units(sizes: Sizes, costs: Costs) -> Keep:
    """Return a plan of these sizes that keeps the first units of each axis, for counting before scores exist."""
    dense = costs.sizes
    keep: Keep = {}
    for axis, size in sizes.items():
        if size != dense[axis] or axis == LAYERS:
            units = list(range(size))
            keep[axis] = [units] * dense[LAYERS] if axis in PER_LAYER_AXES else units
    if {HEADS, KV_HEADS} & keep.keys() and KV_HEADS in dense:
        dense_per_group, per_group = dense[HEADS] // dense[KV_HEADS], sizes[HEADS] // sizes[KV_HEADS]
        heads = [group * dense_per_group + head for group in range(sizes[KV_HEADS]) for head in range(per_group)]
        keep[HEADS] = [heads] * dense[LAYERS]
    groups = expert_groups(costs.config)
    if EXPERTS in keep and sizes[EXPERTS] % groups == 0:
        group_size, per_group = dense[EXPERTS] // groups, sizes[EXPERTS] // groups
        experts = [group * group_size + expert for group in range(groups) for expert in range(per_group)]
        keep[EXPERTS] = [experts] * dense[LAYERS]
    return keep
