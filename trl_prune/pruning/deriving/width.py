"""Derive which dimension of which weight belongs to which axis: by making tiny models wider, one axis at a time."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from transformers import PreTrainedConfig

from trl_prune.pruning.deriving.growth import ADDED, EXPERT_INDEX, Growth, expansion_keys, growths
from trl_prune.pruning.deriving.projections import head_dims, is_transposed, reads_heads
from trl_prune.pruning.deriving.tiny import tiny_model
from trl_prune.pruning.families import (
    EXPERTS,
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
    L,
    V,
)
from trl_prune.pruning.surgery.cut import head_dim, match_block


LETTERS = {HIDDEN: H, NEURONS: F, HEADS: A, KV_HEADS: K, EXPERTS: E}
# Layouts of a dimension with several parts, as shapes alone cannot tell them apart: side by side, or unit by unit.
LAYOUTS = {("F", 2): ("F+F", "F"), ("A", 3): ("A", "A+A+A"), ("H", 3): ("H+H+H", "H")}
# For each dimension its axis, the layouts it may have, or the set of axes that it grows with otherwise.
Choices = list[str | tuple[str, ...] | set[str]]


def width_rows(tiny: PreTrainedConfig, row: Family) -> Iterator[Family]:
    """Yield rows with the axes of every weight, one for each combination of layouts that shapes do not decide.

    Args:
        tiny: a tiny config of the type.
        row: its row for cuts in depth.
    """
    text = tiny.get_text_config()
    row = replace(row, expansion_keys=expansion_keys(tiny, row))
    keys, grown = growths(tiny, row)
    sizes = {axis: getattr(text, key) for axis, key in keys.items()}
    model = tiny_model(tiny)
    transposed = is_transposed(model)
    row = replace(row, transposed=transposed, reads_head_dim=HEADS not in keys or reads_heads(grown, transposed))
    by_order = {} if row.reads_head_dim else head_dims(model, grown, row, text)
    if not row.reads_head_dim and not by_order:  # heads and hidden channels cannot be told apart by their number
        keys = {axis: key for axis, key in keys.items() if axis not in (HIDDEN, HEADS, KV_HEADS)}
    choices = {name: by_order.get(name) or _choices(name, growth, keys, sizes, text) for name, growth in grown.items()}
    row = replace(
        row,
        config_keys=dict(row.config_keys)
        | {axis: key for axis, key in keys.items() if text.attribute_map.get(axis, axis) != key},
        indexed_names={EXPERT_INDEX: EXPERTS} if any(re.search(EXPERT_INDEX, name) for name in grown) else {},
        head_keys=(KV_HEADS,) if HEADS in keys and getattr(text, KV_HEADS, None) == sizes[HEADS] else (),
    )
    ambiguous = sorted({dim for dims in choices.values() for dim in dims if isinstance(dim, tuple)})
    for layouts in product(*ambiguous):
        yield _row_with(row, choices, dict(zip(ambiguous, layouts, strict=True)))


def _row_with(row: Family, choices: Mapping[str, Choices], layouts: Mapping[tuple[str, ...], str]) -> Family:
    """Return the row with the weights' axes, in given layouts."""
    conflicts = {axis for dims in choices.values() for dim in dims for axis in (dim if isinstance(dim, set) else ())}
    weights = {
        name: tuple(layouts.get(dim, dim) if not isinstance(dim, set) else V for dim in dims) or (V,)
        for name, dims in choices.items()
        # A bias has the output axis of its weight.
        if not (name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in choices)
    }
    found: dict[str, Dims] = {}
    for name, pattern in _patterns(weights, row).items():
        dims = weights[name]
        other = found.setdefault(pattern, dims)
        # A weight of this name is another one in other blocks.
        conflicts |= {axis for axis, letter in LETTERS.items() if _uses(dims, letter) != _uses(other, letter)}
    # The longest first: a tower's weights may end in the names of the blocks' weights.
    ordered = sorted((dict(row.weights) | found).items(), key=lambda entry: -len(entry[0]))
    return replace(
        row, weights={name: _merged(row.weights.get(name), _without(dims, conflicts)) for name, dims in ordered}
    )


def _merged(depth: Dims | None, width: Dims) -> Dims:
    """Return dims with the dimensions that have a part for each block, in weights outside the blocks."""
    return tuple(L if old == L else new for old, new in zip(depth, width, strict=True)) if depth else width


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
        parts = unit if axis in (NEURONS, HIDDEN) else unit / (head_dim(config) or unit)
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


def _patterns(weights: Mapping[str, Dims], row: Family) -> dict[str, str]:
    """Return the pattern of each tensor's name: from inside its block, with any number for each index.

    Numbers stay where they tell weights of other dimensions in one block apart, such as the layers of a Sequential.
    """
    patterns: dict[str, tuple[str, str]] = {}
    dims_of: dict[tuple[str, str], set[Dims]] = {}
    for name, dims in weights.items():
        block = match_block(name, row)
        inside = name[block.end() :] if block else name
        inside = re.escape(
            inside if inside.endswith("_bias") else inside.removesuffix(".weight").removesuffix(".bias")
        )
        numbered = re.sub(r"(^|\\\.)\d+(?=\\\.|$)", lambda match: f"{match[1]}\\d+", inside)
        patterns[name] = (inside, numbered)
        dims_of.setdefault((block[0] if block else "", numbered), set()).add(dims)
    several = {numbered for (_, numbered), dims in dims_of.items() if len(dims) > 1}
    return {name: inside if numbered in several else numbered for name, (inside, numbered) in patterns.items()}
