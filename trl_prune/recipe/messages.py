"""Turn a validation error of a recipe into one sentence that names key, value, allowed values and line."""

import difflib
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from trl_prune.recipe.recipe import Recipe


def _sentence(fault: dict) -> str:
    loc = [str(part) for part in fault["loc"]]
    key = ".".join(loc)
    if fault["type"] == "extra_forbidden":
        known = sorted(_keys_at(loc[:-1]))
        close = difflib.get_close_matches(loc[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if fault["type"] == "value_error":
        return f"{key} {message}".strip()
    return f"{key} is {fault['input']!r}; {message.replace('input should be', 'wanted:')}"


def _keys_at(loc: list[str]) -> set[str]:
    section: type[BaseModel] = Recipe
    for part in loc:
        section = _section_of(section, part)
    return set(section.model_fields)


def _section_of(section: type[BaseModel], part: str) -> type[BaseModel]:
    if part not in section.model_fields:  # an arm's name inside `recover`
        return section
    return next(_sections_in(section.model_fields[part].annotation), section)


def _sections_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _sections_in(inner)


def _line_of(text: str, loc: tuple) -> int | None:
    node = yaml.compose(text) if text else None
    line = None
    for part in loc:
        children = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in children if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
