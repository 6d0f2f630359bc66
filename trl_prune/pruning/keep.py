"""The pruning plan: the kept units of each axis, as indices into the dense model.

`num_hidden_layers` and `hidden_size` have one list of indices; heads, KV heads, neurons and experts have one list per
dense layer, all of the same length, because importance ranks units within a layer and shapes stay uniform.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.families import (
    AXES,
    EXPERTS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    NEURONS,
    Family,
    V,
    family_of,
)


Keep = dict[str, list]
EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
# Axes with one list of indices per dense layer.
PER_LAYER_AXES = (NEURONS, HEADS, KV_HEADS, EXPERTS)


def axis_sizes(config: PreTrainedConfig, family: Family) -> dict[str, int]:
    """Return the model's number of units along each axis that its format supports."""
    config = config.get_text_config()
    sizes = {axis: getattr(config, family.config_key(axis, {}), None) for axis in AXES if axis in family.axes}
    if NEURONS in sizes and sizes[NEURONS] is None:
        sizes[NEURONS] = 4 * config.hidden_size  # default of GPT-2, the only family that may leave it unset
    if NEURONS in sizes and getattr(config, "block_auto_adjust_ff_dim", False):
        sizes[NEURONS] = _adjusted_neurons(config)
    return sizes


def _adjusted_neurons(config: PreTrainedConfig) -> int:
    """Return the number of neurons of LFM2's blocks, whose config gives it before it is adjusted."""
    multiple = config.block_multiple_of
    neurons = int(config.block_ffn_dim_multiplier * (2 * config.intermediate_size // 3))
    return multiple * math.ceil(neurons / multiple)


def complete_keep(keep: Mapping[str, list], config: PreTrainedConfig, family: Family) -> Keep:
    """Check a plan and add the list of layers, and, if heads or KV heads are cut, the list of the other axis.

    Args:
        keep: the kept indices by axis; an axis left out is not cut.
        config: the dense model's config.
        family: its row in the family table.

    Raises:
        InputError: an axis that the family does not have, indices out of range, lists of unequal lengths, KV groups
            with different numbers of query heads, fewer experts than a token is routed to, or sizes of heads and
            hidden channels that the format does not allow together.
    """
    config = config.get_text_config()
    sizes = axis_sizes(config, family)
    for axis in keep:
        check_axis(axis, sizes, config, family, "keep: ")
    completed = {LAYERS: list(range(sizes[LAYERS]))} | dict(keep)
    for axis in {LAYERS, HIDDEN} & completed.keys():
        _check_indices(completed[axis], sizes[axis], f"keep.{axis}")
    for axis in [axis for axis in PER_LAYER_AXES if axis in completed]:
        _check_lists(completed[axis], sizes[axis], sizes[LAYERS], f"keep.{axis}")
    completed |= _complete_groups(completed, sizes)
    _check_experts(completed, config)
    _check_tied_axes(completed, config, family)
    _check_slopes(completed, config)
    return completed


def expert_groups(config: PreTrainedConfig) -> int:
    """Return the number of groups that a block's experts are routed in (DeepSeek's routing), 1 without groups."""
    return getattr(config.get_text_config(), "n_group", None) or 1


def row_for(config: PreTrainedConfig) -> Family:
    """Return the row of a model: its type's, with what this model's config cannot express of it.

    Raises:
        InputError: the type has no row.
    """
    row, text = family_of(config.model_type), config.get_text_config()
    if _norms_queries(text):
        return replace(row, reads_head_dim=False, weights={r"[qk]_layernorm": (HEAD_DIM,), **row.weights})
    if row.reads_head_dim and _checks_factors(text):
        return replace(row, reads_head_dim=False)
    embedded = getattr(text, "word_embed_proj_dim", None)
    if embedded not in (None, text.hidden_size):
        reason = (
            f"its embeddings have {embedded} channels, which are projected to the {text.hidden_size} of its blocks"
        )
        weights = {r"project_(in|out)": (V, V), **row.weights}
        return replace(row, weights=weights, unsupported={**row.unsupported, HIDDEN: reason, HEADS: reason})
    return row


def _norms_queries(config: PreTrainedConfig) -> bool:
    """Return whether a Phi has norms of queries and keys, which are as long as hidden_size / num_attention_heads."""
    return config.model_type == "phi" and config.qk_layernorm


def _checks_factors(config: PreTrainedConfig) -> bool:
    """Return whether a config compares its rotary factors (longrope) with hidden_size / num_attention_heads.

    Phi-3's does, whatever its head_dim; this tries twice the channels.
    """
    if "short_factor" not in (getattr(config, "rope_parameters", None) or {}):
        return False
    try:
        type(config).from_dict(config.to_dict() | {config.attribute_map.get(HIDDEN, HIDDEN): 2 * config.hidden_size})
    except (StrictDataclassError, ValueError):
        return True
    return False


def heads_divide_hidden(config: PreTrainedConfig) -> bool:
    """Return whether a model's config requires hidden_size to be a multiple of num_attention_heads.

    About 50 of transformers' configs do, even where head_dim is a separate key; this tries a size that is no multiple.
    """
    config = config.get_text_config()
    if getattr(config, HEADS, None) is None:
        return False
    not_a_multiple = config.num_attention_heads * 8 + 1
    try:
        type(config).from_dict(config.to_dict() | {config.attribute_map.get(HIDDEN, HIDDEN): not_a_multiple})
    except (StrictDataclassError, ValueError):
        return config.num_attention_heads > 1
    return False


def check_axis(
    axis: str, sizes: Mapping[str, int], config: PreTrainedConfig, family: Family, prefix: str = ""
) -> None:
    """Check that a model has an axis.

    Args:
        axis: its name.
        sizes: the model's number of units along each of its axes.
        config: the model's config.
        family: its row in the family table.
        prefix: start of the error, such as the key that names the axis.

    Raises:
        InputError: it does not; with the reason if the family's row gives one.
    """
    if axis in family.unsupported:
        raise InputError(f"{prefix}{config.model_type} cannot be cut along {axis}: {family.unsupported[axis]}")
    if axis not in sizes:
        raise InputError(f"{prefix}{axis!r} is not an axis of {config.model_type}; allowed: {', '.join(sizes)}")


def _check_indices(indices: object, size: int, path: str) -> None:
    if not isinstance(indices, Sequence) or not len(indices):
        raise InputError(f"{path} is empty: at least one unit must be kept")
    if any(not isinstance(index, int) for index in indices):
        raise InputError(f"{path} is {_shortened(indices)}; wanted: a list of integers")
    if list(indices) != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= size:
        raise InputError(
            f"{path} is {_shortened(indices)}; wanted: increasing indices without repeats in 0..{size - 1}"
        )


def _shortened(indices: Sequence) -> str:
    return str(list(indices)) if len(indices) <= 12 else f"[{', '.join(map(str, indices[:12]))}, ...]"


def _check_lists(lists: Sequence, size: int, num_layers: int, path: str) -> None:
    if len(lists) != num_layers or any(not isinstance(indices, Sequence) for indices in lists):
        raise InputError(f"{path} has {len(lists)} entries; wanted: a list of indices for each of {num_layers} layers")
    for layer, indices in enumerate(lists):
        _check_indices(indices, size, f"{path}[{layer}]")
    lengths = sorted({len(indices) for indices in lists})
    if len(lengths) > 1:
        raise InputError(
            f"{path} keeps {lengths[0]} to {lengths[-1]} units per layer; wanted: the same number in each"
        )


def _complete_groups(keep: Keep, sizes: Mapping[str, int]) -> Keep:
    """Derive heads from KV heads or KV heads from heads, and check that each KV group keeps as many heads."""
    if not {HEADS, KV_HEADS} & keep.keys() or KV_HEADS not in sizes:
        return {}
    group_size = sizes[HEADS] // sizes[KV_HEADS]
    all_groups = [range(sizes[KV_HEADS])] * sizes[LAYERS]
    if HEADS not in keep:
        return {HEADS: [_heads_of_groups(groups, group_size) for groups in keep[KV_HEADS]]}
    kept_groups = keep.get(KV_HEADS, keep[HEADS] if group_size == 1 else all_groups)
    for layer, (heads, groups) in enumerate(zip(keep[HEADS], kept_groups, strict=True)):
        _check_groups(Counter(head // group_size for head in heads), list(groups), layer)
    return {KV_HEADS: [list(groups) for groups in kept_groups]}


def _heads_of_groups(groups: Sequence[int], group_size: int) -> list[int]:
    return [group * group_size + offset for group in groups for offset in range(group_size)]


def _check_groups(head_counts: Counter, groups: list[int], layer: int) -> None:
    if sorted(head_counts) != groups or len(set(head_counts.values())) > 1:
        counts = ", ".join(f"{head_counts[group]} of group {group}" for group in sorted({*head_counts, *groups}))
        raise InputError(
            f"keep.{HEADS}[{layer}] has {counts} (kept groups: {groups}); every kept KV group must keep the same "
            f"number of query heads, and every other group none"
        )


def _check_experts(keep: Keep, config: PreTrainedConfig) -> None:
    if EXPERTS not in keep:
        return
    kept, routed = len(keep[EXPERTS][0]), config.num_experts_per_tok
    if kept < routed:
        raise InputError(f"keep.{EXPERTS} keeps {kept} experts per layer, but each token is routed to {routed}")
    groups = expert_groups(config)
    if groups > 1:
        _check_expert_groups(keep[EXPERTS], groups, config)


def _check_expert_groups(lists: Sequence[Sequence[int]], groups: int, config: PreTrainedConfig) -> None:
    """Check that groups of experts (DeepSeek's routing) keep equally many, two at least, whose scores rank a group."""
    size = next(getattr(config, key) for key in EXPERT_KEYS if getattr(config, key, None)) // groups
    for layer, experts in enumerate(lists):
        counts = Counter(expert // size for expert in experts)
        if len(counts) < groups or len(set(counts.values())) > 1 or min(counts.values()) < 2:
            kept = ", ".join(str(counts[group]) for group in range(groups))
            raise InputError(
                f"keep.{EXPERTS}[{layer}] keeps {kept} experts of {groups} groups; wanted: equally many of each, at "
                f"least two"
            )


def _check_tied_axes(keep: Keep, config: PreTrainedConfig, family: Family) -> None:
    if not {HEADS, HIDDEN} & keep.keys() or not getattr(config, HEADS, None):
        return
    hidden_size = config.hidden_size
    head_dim = hidden_size // config.num_attention_heads
    heads = len(keep[HEADS][0]) if HEADS in keep else config.num_attention_heads
    hidden = len(keep[HIDDEN]) if HIDDEN in keep else hidden_size
    if hidden % heads and heads_divide_hidden(config):
        raise InputError(
            f"transformers requires {config.model_type}'s {HIDDEN} to be a multiple of {HEADS}; {hidden} is not a "
            f"multiple of {heads} (the nearest below: {hidden // heads * heads})"
        )
    if not family.reads_head_dim and heads * head_dim != hidden:
        raise InputError(
            f"{config.model_type} takes {HIDDEN} / {HEADS} = {head_dim} as head_dim: heads and hidden "
            f"channels can only be cut together, and {heads} heads need {heads * head_dim} channels, not {hidden}"
        )


def _check_slopes(keep: Keep, config: PreTrainedConfig) -> None:
    """Check that no heads are cut whose slopes (ALiBi) depend on their number."""
    if HEADS in keep and getattr(config, "alibi", False):
        raise InputError(
            f"keep.{HEADS}: {config.model_type} with alibi gives each head a slope by the number of heads, so that "
            f"heads, and channels with them, cannot be cut"
        )


def kept_sizes(keep: Mapping[str, list]) -> dict[str, int]:
    """Return the number of kept units of each axis in a plan."""
    return {axis: len(lists[0]) if axis in PER_LAYER_AXES else len(lists) for axis, lists in keep.items()}


def compose_keep(first: Mapping[str, list], second: Mapping[str, list], num_layers: int) -> Keep:
    """Return two cuts in a row as one plan, indexed in the dense model.

    Layers that the first cut removed still need an entry in each per-layer list: its first units, as placeholders.

    Args:
        first: the first cut, indexed in the dense model.
        second: the second cut, indexed in the model that the first cut produced.
        num_layers: number of layers of the dense model.
    """
    composed = dict(first) | dict(second)
    for axis in {LAYERS, HIDDEN} & first.keys() & second.keys():
        composed[axis] = [first[axis][index] for index in second[axis]]
    kept_layers = first.get(LAYERS, range(num_layers))
    for axis in [axis for axis in PER_LAYER_AXES if axis in second]:
        count = len(second[axis][0])
        composed[axis] = [
            list(first.get(axis, [range(count)] * num_layers)[layer][:count]) for layer in range(num_layers)
        ]
        for indices, layer in zip(second[axis], kept_layers, strict=True):
            composed[axis][layer] = (
                [first[axis][layer][index] for index in indices] if axis in first else list(indices)
            )
    return composed
