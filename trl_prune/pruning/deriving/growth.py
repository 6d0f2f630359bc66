"""How the tensors of a tiny model grow with each axis: what shapes alone tell of their dimensions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.deriving.rows import Shapes, parameter_shapes, stored_shapes
from trl_prune.pruning.deriving.tiny import tiny_model
from trl_prune.pruning.families import EXPERTS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, NEURONS, Family
from trl_prune.pruning.keep import EXPERT_KEYS
from trl_prune.pruning.surgery.cut import changed_config, head_dim


# How many units are added to each axis.
ADDED = {HIDDEN: 8, NEURONS: 8, HEADS: 4, KV_HEADS: 2, EXPERTS: 2}
# Keys of the number of neurons, of dense MLPs before those of shared experts: the first that weights grow with counts.
NEURON_KEYS = (
    "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "dim_ff", "dff", "d_inner", "intermediate_size_mlp",
    "dense_intermediate_size", "shared_intermediate_size", "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size", "shared_experts_intermediate_size",
)  # fmt: skip
KEYS = {HIDDEN: (HIDDEN,), NEURONS: NEURON_KEYS, HEADS: (HEADS,), KV_HEADS: (KV_HEADS,), EXPERTS: EXPERT_KEYS}
EXPANSION_KEYS = ("mamba_expand", "expand")
EXPERT_INDEX = r"\.experts\.(\d+)\."


@dataclass(frozen=True)
class Growth:
    """How a tensor's dimensions grow.

    Attributes:
        shape: the tensor's shape in the tiny model.
        added: for each dimension, by axis, the rows that are added with the axis's units.
    """

    shape: tuple[int, ...]
    added: tuple[Mapping[str, int], ...]


def axis_keys(config: PreTrainedConfig) -> dict[str, list[str]]:
    """Return the config keys that may count the units of each axis, the likeliest first."""
    values = config.to_dict()
    keys = {axis: [config.attribute_map.get(name, name) for name in names] for axis, names in KEYS.items()}
    keys = {axis: [name for name in names if type(values.get(name)) is int] for axis, names in keys.items()}
    return {axis: names for axis, names in keys.items() if names}


def growths(tiny: PreTrainedConfig, row: Family) -> tuple[dict[str, str], dict[str, Growth]]:
    """Return the config key of each axis that the type can have wider, and how each tensor grows with each axis."""
    text, base = tiny.get_text_config(), _all_shapes(tiny)
    keys: dict[str, str] = {}
    wider: dict[str, Shapes] = {}
    for axis, names in axis_keys(text).items():
        for key in names:
            shapes = _shapes_or_none(tiny, _changes(text, axis, key, row))
            if shapes is not None and (axis != NEURONS or _grows_outside_experts(base, shapes)):
                keys[axis], wider[axis] = key, shapes
                break
    if KV_HEADS in keys and HEADS in keys and getattr(text, keys[KV_HEADS]) == getattr(text, keys[HEADS]):
        del keys[KV_HEADS], wider[KV_HEADS]
    return keys, {
        name: Growth(
            shape,
            tuple(
                {axis: grown for axis in wider if (grown := wider[axis].get(name, shape)[dim] - length) > 0}
                for dim, length in enumerate(shape)
            ),
        )
        for name, shape in base.items()
    }


def expansion_keys(tiny: PreTrainedConfig, row: Family) -> tuple[str, ...]:
    """Return the config keys that say how many times wider than hidden_size a mixer is, if that decides its width."""
    text = tiny.get_text_config()
    named = tuple(key for key in EXPANSION_KEYS if type(getattr(text, key, None)) is int)
    key = text.attribute_map.get(HIDDEN, HIDDEN)
    wider = [
        _shapes_or_none(tiny, _changes(text, HIDDEN, key, candidate))
        for candidate in (replace(row, expansion_keys=named), row)
        if named
    ]
    return named if named and wider[0] is not None and wider[0] != wider[1] else ()


def _shapes_or_none(tiny: PreTrainedConfig, changes: Mapping) -> Shapes | None:
    """Return the shapes with some changes to the config, or None if the type cannot have them."""
    try:
        return _all_shapes(changed_config(tiny, changes))
    except (InputError, ValueError, RuntimeError):
        return None


def _changes(text: PreTrainedConfig, axis: str, key: str, row: Family) -> dict:
    """Return the config entries with which an axis has more units."""
    # Some types read `head_dim` where their config names it, though by default it does not.
    named = {} if head_dim(text) else {HEAD_DIM: getattr(text, HIDDEN, 0) // getattr(text, HEADS, 1)}
    size = getattr(text, key)
    changes = named | {key: size + ADDED[axis]}
    if axis == HIDDEN:
        changes |= dict.fromkeys(row.hidden_size_keys, changes[key])
        changes |= {name: getattr(text, name) * size // changes[key] for name in row.expansion_keys}
    if axis == HEADS and getattr(text, KV_HEADS, None) == size:
        changes[text.attribute_map.get(KV_HEADS, KV_HEADS)] = changes[key]
    return changes


def is_of_experts(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor holds neurons of routed experts, stacked or one by one."""
    return len(shape) == 3 or re.search(EXPERT_INDEX, f".{name}") is not None


def _grows_outside_experts(base: Shapes, wider: Shapes) -> bool:
    return any(wider.get(name, shape) != shape and not is_of_experts(name, shape) for name, shape in base.items())


def _all_shapes(config: PreTrainedConfig) -> Shapes:
    """Return the shapes by names, as in memory and as on disk."""
    return parameter_shapes(config) | stored_shapes(tiny_model(config))
