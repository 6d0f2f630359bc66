"""Derive which dimension of which weight belongs to which axis: by making tiny models wider, one axis at a time."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.deriving.rows import Shapes, parameter_shapes, stored_shapes
from trl_prune.pruning.deriving.tiny import tiny_model
from trl_prune.pruning.families import (
    EXPERTS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    NEURONS,
    A,
    Dims,
    E,
    F,
    Family,
    H,
    K,
    V,
)
from trl_prune.pruning.keep import EXPERT_KEYS
from trl_prune.pruning.surgery.cut import changed_config, match_block


# How many units are added to each axis.
ADDED = {HIDDEN: 8, NEURONS: 8, HEADS: 4, KV_HEADS: 2, EXPERTS: 2}
LETTERS = {HIDDEN: H, NEURONS: F, HEADS: A, KV_HEADS: K, EXPERTS: E}
FEED_FORWARD_KEYS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
# Layouts of a dimension with several parts, as shapes alone cannot tell them apart: side by side, or unit by unit.
LAYOUTS = {("F", 2): ("F+F", "F"), ("A", 3): ("A", "A+A+A")}
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


def width_rows(tiny: PreTrainedConfig, row: Family) -> Iterator[Family]:
    """Yield rows with the axes of every weight, one for each combination of layouts that shapes do not decide.

    Args:
        tiny: a tiny config of the type.
        row: its row for cuts in depth.
    """
    text = tiny.get_text_config()
    keys = axis_keys(text)
    sizes = {axis: getattr(text, key) for axis, key in keys.items()}
    growths = _growths(tiny, keys, row)
    reads_head_dim = not _hidden_sets_heads(growths)
    if not reads_head_dim:  # heads and hidden channels cannot be told apart by their number
        keys = {axis: key for axis, key in keys.items() if axis not in (HIDDEN, HEADS, KV_HEADS)}
    choices = {name: _choices(name, growth, keys, sizes, text) for name, growth in growths.items()}
    unknown = {axis for dims in choices.values() for dim in dims for axis in (dim if isinstance(dim, set) else ())}
    ambiguous = sorted({dim for dims in choices.values() for dim in dims if isinstance(dim, tuple)})
    config_keys = {axis: key for axis, key in keys.items() if text.attribute_map.get(axis, axis) != key}
    indexed = {EXPERT_INDEX: EXPERTS} if any(re.search(EXPERT_INDEX, name) for name in growths) else {}
    for layouts in product(*ambiguous):
        chosen = dict(zip(ambiguous, layouts, strict=True))
        found: dict[str, Dims] = {}
        conflicts = set(unknown)
        for name, dims in choices.items():
            if name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in choices:
                continue  # a bias has the output axis of its weight
            letters = tuple(chosen.get(dim, dim) if not isinstance(dim, set) else V for dim in dims)
            other = found.setdefault(_pattern(name, row), letters)
            # A weight of this name is another one in other blocks.
            conflicts |= {axis for axis, letter in LETTERS.items() if _uses(letters, letter) != _uses(other, letter)}
        # The longest first: a tower's weights may end in the names of the blocks' weights.
        ordered = sorted((dict(row.weights) | found).items(), key=lambda entry: -len(entry[0]))
        yield replace(
            row,
            weights={name: row.weights.get(name) or _without(dims, conflicts) for name, dims in ordered},
            config_keys=config_keys,
            indexed_names=indexed,
            reads_head_dim=reads_head_dim,
            head_keys=(KV_HEADS,) if sizes.get(HEADS) == sizes.get(KV_HEADS) else (),
        )


def axis_keys(config: PreTrainedConfig) -> dict[str, str]:
    """Return the config key of each axis that a config has."""
    values = config.to_dict()
    keys = {}
    for axis, names in {
        HIDDEN: (HIDDEN,), NEURONS: FEED_FORWARD_KEYS, HEADS: (HEADS,), KV_HEADS: (KV_HEADS,), EXPERTS: EXPERT_KEYS,
    }.items():  # fmt: skip
        found = [config.attribute_map.get(name, name) for name in names]
        found = [name for name in found if type(values.get(name)) is int]
        if found:
            keys[axis] = found[0]
    return keys


def _growths(tiny: PreTrainedConfig, keys: dict[str, str], row: Family) -> dict[str, Growth]:
    """Return how each tensor grows with each axis; axes that the type cannot have wider are left out of `keys`."""
    text, wider = tiny.get_text_config(), {}
    # Some types read `head_dim` where their config names it, though by default it does not.
    named = {} if getattr(text, HEAD_DIM, None) else {HEAD_DIM: getattr(text, HIDDEN, 0) // getattr(text, HEADS, 1)}
    base = _all_shapes(tiny)
    for axis, key in list(keys.items()):
        changes = named | {key: getattr(text, key) + ADDED[axis]}
        changes |= {name: changes[key] for name in row.hidden_size_keys if axis == HIDDEN}
        if axis == HEADS and KV_HEADS in keys and getattr(text, keys[KV_HEADS]) == getattr(text, key):
            changes[keys[KV_HEADS]] = changes[key]
        try:
            wider[axis] = _all_shapes(changed_config(tiny, changes))
        except (InputError, ValueError, RuntimeError):
            del keys[axis]
    if KV_HEADS in keys and HEADS in keys and getattr(text, keys[KV_HEADS]) == getattr(text, keys[HEADS]):
        del keys[KV_HEADS], wider[KV_HEADS]
    return {
        name: Growth(
            shape,
            tuple(
                {axis: grown for axis in wider if (grown := wider[axis].get(name, shape)[dim] - length)}
                for dim, length in enumerate(shape)
            ),
        )
        for name, shape in base.items()
    }


def _all_shapes(config: PreTrainedConfig) -> Shapes:
    """Return the shapes by names, as in memory and as on disk."""
    return parameter_shapes(config) | stored_shapes(tiny_model(config))


def _hidden_sets_heads(growths: Mapping[str, Growth]) -> bool:
    """Return whether no weight grows with the number of heads, which then divide the hidden size among them."""
    return not any(HEADS in added for growth in growths.values() for added in growth.added if len(growth.shape) > 1)


def _choices(
    name: str, growth: Growth, keys: Mapping[str, str], sizes: Mapping[str, int], config: PreTrainedConfig
) -> list[str | tuple[str, ...] | set[str]]:
    """Return for each dimension its axis, the layouts it may have, or the set of axes that it grows with otherwise."""
    in_experts = (len(growth.shape) == 3 and EXPERTS in keys) or re.search(EXPERT_INDEX, f".{name}") is not None
    found: list[str | tuple[str, ...] | set[str]] = []
    for length, added in zip(growth.shape, growth.added, strict=True):
        grown = {axis: rows for axis, rows in added.items() if axis in keys}
        if NEURONS in grown and in_experts:
            found.append({NEURONS})
        else:
            found.append(_axis_of(length, grown, sizes, config))
    return found


def _axis_of(
    length: int, grown: Mapping[str, int], sizes: Mapping[str, int], config: PreTrainedConfig
) -> str | tuple[str, ...] | set[str]:
    if not grown:
        return V
    units = {axis: rows / ADDED[axis] for axis, rows in grown.items()}
    if sum(unit * sizes[axis] for axis, unit in units.items()) != length:
        return set(grown)
    if len(grown) == 1:
        axis, unit = next(iter(units.items()))
        parts = unit if axis == NEURONS else unit / (getattr(config, "head_dim", None) or unit)
        return LAYOUTS.get((LETTERS[axis], parts), LETTERS[axis])
    if grown.keys() == {HEADS, KV_HEADS} and units[KV_HEADS] == 2 * units[HEADS]:
        return "A+K+K"
    return set(grown)


def _uses(dims: Dims, letter: str) -> tuple[bool, ...]:
    return tuple(letter in dim.split("+") for dim in dims)


def _without(dims: Dims, unknown: set[str]) -> Dims:
    """Return dims without the axes that some weight has in a way that is not known."""
    letters = {LETTERS[axis] for axis in unknown}
    return tuple(V if letters & set(dim.split("+")) else dim for dim in dims)


def _pattern(name: str, row: Family) -> str:
    """Return the pattern of a tensor's name: from inside its block, with any number for each index."""
    block = match_block(name, row)
    inside = name[block.end() :] if block else name
    module = inside.removesuffix(".weight").removesuffix(".bias") if not inside.endswith("_bias") else inside
    return re.sub(r"(^|\\\.)\d+(?=\\\.|$)", lambda match: f"{match[1]}\\d+", re.escape(module))
