"""Turn a validation error of a recipe into one sentence that names key, value, allowed values and line."""

from collections.abc import Iterator

import yaml
from pydantic_core import ErrorDetails

from trl_prune.errors import KEY_SIMILARITY, closest, shown
from trl_prune.recipe.merge import ONE_MERGE
from trl_prune.recipe.recipe import Recipe
from trl_prune.recipe.recover import MIX, ONE_SOURCE, ArmSection
from trl_prune.recipe.score import OWN_ANSWERS, READ_ROWS
from trl_prune.recipe.section import Section


FORMS = (ONE_SOURCE, MIX, OWN_ANSWERS, READ_ROWS)


def error_sentence(error: ErrorDetails) -> str:
    """Return pydantic's error about one key as one sentence."""
    path = [str(part) for part in _without_forms(error["loc"])]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"unknown key {shown(key)}; {_hint(path)}"
    if error["type"] == "missing":
        return f"the key {shown(key)} is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return f"{key} {message}".strip()
    return f"{key} is {shown(error['input'])}; {message.replace('input should be', 'wanted:')}"


def _without_forms(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return the key of an error without the form of a value that may have several."""
    one_merge = loc[:2] == ("merge", ONE_MERGE)  # the section may be one merge, which gets that name
    return tuple(part for part in (loc[1:] if one_merge else loc) if part not in FORMS)


def _hint(path: list[str]) -> str:
    section = _section_at(path[:-1])
    likely = next(_likely_keys(path, section), None)
    return f"did you mean {likely!r}?" if likely else f"allowed: {', '.join(sorted(section.model_fields))}"


def _likely_keys(path: list[str], section: type[Section]) -> Iterator[str]:
    """Yield full keys that an unknown one may stand for, the likeliest first.

    Exact names come before similar ones: another library's name for a key of this section, a training or LoRA argument
    of an arm, the name of a key in another section, another library's name for that, then a misspelling.
    """
    prefix, key = path[:-1], path[-1]
    if key in section.other_names:
        yield ".".join([*prefix, section.other_names[key]])
    if prefix[:1] == ["recover"] and issubclass(section, ArmSection):
        yield from (".".join([*prefix, argument]) for argument in _arm_arguments(key))
    # Sections inside this one first, and `search` last, whose keys repeat those of other sections.
    nearest_first = sorted(
        _sections_with_keys(Recipe), key=lambda found: (found[0][: len(prefix)] != prefix, found[0][:1] == ["search"])
    )
    yield from (".".join([*known, key]) for known, inner in nearest_first if key in inner.model_fields)
    yield from (
        ".".join([*known, inner.other_names[key]]) for known, inner in nearest_first if key in inner.other_names
    )
    similar = closest(key, section.model_fields, KEY_SIMILARITY)
    if similar:
        yield ".".join([*prefix, similar])


def _arm_arguments(name: str) -> list[str]:
    """Return `args.NAME` or `peft.NAME` for a name of a training or LoRA argument."""
    from trl_prune.trainers.arms.checks import argument_key  # TRL takes seconds to import, and errors are rare

    key = argument_key(name)
    return [key] if key else []


def _section_at(path: list[str]) -> type[Section]:
    section: type[Section] = Recipe
    for part in path:
        if part in section.model_fields:  # else it is the name of an arm inside `recover`
            section = next(sections_in(section.model_fields[part].annotation), section)
    return section


def _sections_with_keys(
    section: type[Section], prefix: tuple[str, ...] = ()
) -> Iterator[tuple[list[str], type[Section]]]:
    """Yield each section with the keys that lead to it."""
    yield list(prefix), section
    for name, field in section.model_fields.items():
        names = (name, "ARM") if name == "recover" else (name,)
        for inner in sections_in(field.annotation):
            yield from _sections_with_keys(inner, (*prefix, *names))


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
    for part in _without_forms(path):
        entry = next((child for child in _children(node) if child[0] == str(part)), None)
        if entry is None:
            break
        _, line, node = entry
    return line


def _children(node: yaml.Node | None) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield key, line and value of a mapping's or list's entries."""
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, key.start_mark.line + 1, value) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode):
        yield from ((str(index), value.start_mark.line + 1, value) for index, value in enumerate(node.value))
