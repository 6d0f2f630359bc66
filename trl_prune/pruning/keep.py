"""The pruning plan: which units of each axis stay, counted in the dense model.

`num_hidden_layers` and `hidden_size` have one list of indices; heads, KV heads, neurons and experts have one list per
dense layer, all of one length, because importance ranks inside a layer and shapes stay uniform.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.families import AXES, EXPERTS, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS, Family


Keep = dict[str, list]
PER_LAYER = (NEURONS, HEADS, GROUPS, EXPERTS)


def axis_sizes(config: PreTrainedConfig, family: Family) -> dict[str, int]:
    """Return how many units the model has of each axis that its format can express."""
    sizes = {axis: getattr(config, family.key(axis, {}), None) for axis in AXES if axis in family.axes}
    if NEURONS in sizes and sizes[NEURONS] is None:
        sizes[NEURONS] = 4 * config.hidden_size  # the default of GPT-2, the one family that leaves it open
    return sizes


def complete_keep(keep: Mapping[str, list], config: PreTrainedConfig, family: Family) -> Keep:
    """Check a plan and return it with the list of blocks, and with heads and KV heads both said where one is cut.

    Args:
        keep: the kept indices by axis; an axis left out stays whole.
        config: the dense model's config.
        family: its row.

    Raises:
        InputError: an axis that the family does not have, indices that do not fit, lists of unequal lengths, a group
            of query heads cut unevenly, fewer experts than a token is routed to, or heads and hidden channels that
            the format ties together.
    """
    sizes = axis_sizes(config, family)
    for axis in keep:
        check_axis(axis, sizes, config, family)
    whole = {LAYERS: list(range(sizes[LAYERS]))} | dict(keep)
    for axis in {LAYERS, HIDDEN} & whole.keys():
        _check_indices(whole[axis], sizes[axis], f"keep.{axis}")
    for axis in set(PER_LAYER) & whole.keys():
        _check_lists(whole[axis], sizes[axis], sizes[LAYERS], f"keep.{axis}")
    whole |= _whole_groups(whole, sizes)
    _check_experts(whole, config)
    _check_tied_axes(whole, sizes, config, family)
    return whole


def heads_divide_hidden(config: PreTrainedConfig) -> bool:
    """Return whether a model's config demands that hidden_size be a multiple of num_attention_heads.

    Some 50 of transformers' configs do, even where head_dim is a key of its own; they are asked, by a size that is no
    multiple.
    """
    odd = config.num_attention_heads * 8 + 1
    try:
        type(config).from_dict(config.to_dict() | {config.attribute_map.get(HIDDEN, HIDDEN): odd})
    except (StrictDataclassError, ValueError):
        return config.num_attention_heads > 1
    return False


def check_axis(axis: str, sizes: Mapping[str, int], config: PreTrainedConfig, family: Family) -> None:
    """Check that a model has an axis.

    Raises:
        InputError: it does not, with the reason where the family's row gives one.
    """
    if axis in family.refused:
        raise InputError(f"{config.model_type} cannot be cut along {axis}: {family.refused[axis]}")
    if axis not in sizes:
        raise InputError(f"keep names the axis {axis!r}; {config.model_type} has {', '.join(sizes)}")


def _check_indices(indices: object, size: int, where: str) -> None:
    if not isinstance(indices, Sequence) or not len(indices):
        raise InputError(f"{where} is empty: at least one must stay")
    if any(not isinstance(index, int) for index in indices):
        raise InputError(f"{where} is {_shortened(indices)}; wanted: a list of whole numbers")
    if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= size:
        raise InputError(f"{where} is {_shortened(indices)}; wanted: growing indices without repeats in 0..{size - 1}")


def _shortened(indices: Sequence) -> str:
    return str(list(indices)) if len(indices) <= 12 else f"[{', '.join(map(str, indices[:12]))}, ...]"


def _check_lists(lists: Sequence, size: int, num_layers: int, where: str) -> None:
    if len(lists) != num_layers or any(not isinstance(indices, Sequence) for indices in lists):
        raise InputError(
            f"{where} has {len(lists)} entries; wanted: a list of indices for each of {num_layers} layers"
        )
    for layer, indices in enumerate(lists):
        _check_indices(indices, size, f"{where}[{layer}]")
    lengths = sorted({len(indices) for indices in lists})
    if len(lengths) > 1:
        raise InputError(f"{where} keeps {lengths[0]} to {lengths[-1]} units a layer; every layer must keep as many")


def _whole_groups(keep: Keep, sizes: Mapping[str, int]) -> Keep:
    """Say heads by their KV heads and KV heads by their heads, and check that groups keep equally many heads."""
    if not {HEADS, GROUPS} & keep.keys() or GROUPS not in sizes:
        return {}
    each = sizes[HEADS] // sizes[GROUPS]
    all_groups = [range(sizes[GROUPS])] * sizes[LAYERS]
    if HEADS not in keep:
        heads = [[group * each + place for group in groups for place in range(each)] for groups in keep[GROUPS]]
        return {HEADS: heads}
    groups = keep.get(GROUPS, keep[HEADS] if each == 1 else all_groups)
    for layer, (heads, kept) in enumerate(zip(keep[HEADS], groups, strict=True)):
        _check_groups(Counter(head // each for head in heads), list(kept), layer)
    return {GROUPS: [list(kept) for kept in groups]}


def _check_groups(heads_of: Counter, groups: list[int], layer: int) -> None:
    if sorted(heads_of) != groups or len(set(heads_of.values())) > 1:
        told = ", ".join(f"{heads_of[group]} of group {group}" for group in sorted({*heads_of, *groups}))
        raise InputError(
            f"keep.{HEADS}[{layer}] has {told} (kept groups: {groups}); every kept KV group must keep equally many "
            f"query heads and no other group any"
        )


def _check_experts(keep: Keep, config: PreTrainedConfig) -> None:
    if EXPERTS not in keep:
        return
    left, routed = len(keep[EXPERTS][0]), config.num_experts_per_tok
    if left < routed:
        raise InputError(f"keep.{EXPERTS} leaves {left} experts a layer, and each token is routed to {routed}")


def _check_tied_axes(keep: Keep, sizes: Mapping[str, int], config: PreTrainedConfig, family: Family) -> None:
    if not {HEADS, HIDDEN} & keep.keys():
        return
    head_dim = sizes[HIDDEN] // sizes[HEADS]
    heads = len(keep[HEADS][0]) if HEADS in keep else sizes[HEADS]
    hidden = len(keep[HIDDEN]) if HIDDEN in keep else sizes[HIDDEN]
    if hidden % heads and heads_divide_hidden(config):
        raise InputError(
            f"transformers wants {config.model_type}'s {HIDDEN} to be a multiple of {HEADS}; {hidden} is none of "
            f"{heads} (the nearest below: {hidden // heads * heads})"
        )
    if not family.head_dim_free and heads * head_dim != hidden:
        raise InputError(
            f"{config.model_type} has no head_dim of its own, it is {HIDDEN} / {HEADS} = {head_dim}: heads and hidden "
            f"channels can only go together, and {heads} heads need {heads * head_dim} channels, not {hidden}"
        )


def kept_sizes(keep: Mapping[str, list]) -> dict[str, int]:
    """Return how many units of each named axis stay."""
    return {axis: len(lists[0]) if axis in PER_LAYER else len(lists) for axis, lists in keep.items()}


def compose_keep(before: Mapping[str, list], now: Mapping[str, list], num_layers: int) -> Keep:
    """Return a cut of a cut, counted in the dense model.

    Layers that the first cut removed need an entry in each per-layer list all the same: the first so many units.

    Args:
        before: the first cut, counted in the dense model.
        now: the second, counted in what the first left.
        num_layers: the dense model's layers.
    """
    composed = dict(before) | dict(now)
    for axis in {LAYERS, HIDDEN} & before.keys() & now.keys():
        composed[axis] = [before[axis][index] for index in now[axis]]
    layers = before.get(LAYERS, range(num_layers))
    for axis in set(PER_LAYER) & now.keys():
        count = len(now[axis][0])
        composed[axis] = [
            list(before.get(axis, [range(count)] * num_layers)[layer][:count]) for layer in range(num_layers)
        ]
        for place, layer in enumerate(layers):
            kept = now[axis][place]
            composed[axis][layer] = [before[axis][layer][index] for index in kept] if axis in before else list(kept)
    return composed
