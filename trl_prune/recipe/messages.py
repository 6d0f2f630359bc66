"""Turn a validation error of a recipe into one sentence that names key, value, allowed values and line."""

import difflib
from collections.abc import Iterator

import yaml
from pydantic_core import ErrorDetails

from trl_prune.recipe.recipe import Recipe
from trl_prune.recipe.section import Section


def error_sentence(error: ErrorDetails) -> str:
    """Return pydantic's error about one key as one sentence."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {_hint(path)}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return f"{key} {message}".strip()
    return f"{key} is {error['input']!r}; {message.replace('input should be', 'wanted:')}"


def _hint(path: list[str]) -> str:
    """Return the likeliest key for an unknown one: another library's name for it, a similar one, or one elsewhere."""
    section, key = _section_at(path[:-1]), path[-1]
    names = {name: name for name in section.model_fields} | section.other_names
    similar = difflib.get_close_matches(key, names, n=1)
    elsewhere = [".".join(known) for known in _all_keys(Recipe) if known[-1] == key]
    if similar:
        return f"did you mean {names[similar[0]]!r}?"
    if elsewhere:
        return f"did you mean {elsewhere[0]!r}?"
    return f"allowed: {', '.join(sorted(section.model_fields))}"


def _section_at(path: list[str]) -> type[Section]:
    section: type[Section] = Recipe
    for part in path:
        if part in section.model_fields:  # else it is the name of an arm inside `recover`
            section = next(sections_in(section.model_fields[part].annotation), section)
    return section


def _all_keys(section: type[Section]) -> Iterator[list[str]]:
    for name, field in section.model_fields.items():
        yield [name]
        prefix = [name, "ARM"] if name == "recover" else [name]
        for inner in sections_in(field.annotation):
            yield from ([*prefix, *rest] for rest in _all_keys(inner))


def sections_in(annotation: object) -> Iterator[type[Section]]:
    """Yield the sections named in a field's annotation, such as `dict[str, ArmSection]` or `X | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from sections_in(inner)


def line_of(text: str, path: tuple[str | int, ...]) -> int | None:
    """Return the line of a key in a YAML text, counted from 1; of its nearest parent where the key is not there."""
    node = yaml.compose(text) if text else None
    line = None
    for part in path:
        children = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next(((key, value) for key, value in children if key.value == str(part)), None)
        if entry is None:
            break
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line
