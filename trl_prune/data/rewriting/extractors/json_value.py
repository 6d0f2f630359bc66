"""The JSON value of a text."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal

from trl_prune.data.rewriting.extractors.fences import fenced_blocks


JSON_TAGS = ("", "json", "json5")


PIECE = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\]]', re.DOTALL)


# Brackets that are never closed make each attempt as long as the text.
MAX_ATTEMPTS = 20


def json_value(text: str) -> object | None:
    """Return the JSON value of a text, with decimals as `Decimal`, or None; so is `null`.

    It is the whole text, a fenced block, or else the first balanced `{...}` or `[...]` that is JSON.
    """
    found = next(json_values(text), None)
    return None if found is None else found[0]


def same_json(rewrite: str, reference: str) -> bool:
    """Return whether both texts contain the same JSON value: 1 is 1.0, the order of keys has no meaning."""
    found, expected = next(json_values(rewrite), None), next(json_values(reference), None)
    return found is not None and expected is not None and equal_json(found[0], expected[0])


def json_values(text: str) -> Iterator[tuple[object]]:
    """Yield the JSON values of a text, each in a tuple, the likeliest first."""
    for source in (text, *fenced_blocks(text, JSON_TAGS)):
        parsed = parsed_json(source)
        if parsed is not None:
            yield parsed
    for source in balanced_parts(text):
        parsed = parsed_json(source)
        if parsed is not None:
            yield parsed


def equal_json(value: object, other: object) -> bool:
    """Return whether two JSON values are equal; unlike in Python, `true` is not 1."""
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(equal_json(value[key], other[key]) for key in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(equal_json, value, other))
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def parsed_json(text: str) -> tuple[object] | None:
    """Return the value of a JSON text in a tuple, or None if it is no JSON."""
    try:
        return (json.loads(text, parse_float=Decimal, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def balanced_parts(text: str) -> Iterator[str]:
    """Yield the parts of a text from a bracket or brace to the one that closes it; none lies in another."""
    position = 0
    for _ in range(MAX_ATTEMPTS):
        opening = re.compile(r"[{\[]").search(text, position)
        if opening is None:
            return
        end = _closing(text, opening.start())
        if end is not None:
            yield text[opening.start() : end]
        position = opening.end() if end is None else end


def _closing(text: str, start: int) -> int | None:
    depth = 0
    for piece in PIECE.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(piece.group(), 0)
        if depth == 0 and piece.start() > start:
            return piece.end()
    return None


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
