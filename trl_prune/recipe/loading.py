"""Load a recipe from YAML, apply overrides and validate it."""

import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from trl_prune.errors import InputError, first_line
from trl_prune.recipe.messages import _line_of, _sentence
from trl_prune.recipe.recipe import Recipe


class Loader(yaml.SafeLoader):
    """YAML that reads `1e-4` as a number, as everyone who writes a learning rate means it; YAML 1.1 wants `1.0e-4`."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _unshared(value: object) -> object:
    """Return nested mappings without YAML's sharing, so that an override of one arm leaves the others alone."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def load_recipe(path: Path | None, overrides: list[str]) -> Recipe:
    """Return the recipe of a file with `section.key=value` overrides on top.

    Raises:
        InputError: no such file, bad YAML, an unknown key, a wrong value; the sentence names the place.
    """
    text = _read(path) if path else ""
    try:
        values = _unshared(yaml.load(text, Loader)) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{path}{line} is not YAML: {getattr(error, 'problem', None) or first_line(error)}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; wanted: a mapping of sections")
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, str(path) if path else "the command line", text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the recipe {path} cannot be read: {reason}") from error


def _override(values: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{override!r} is no override; wanted: section.key=value")
    *sections, last = key.split(".")
    here = values
    for section in sections:
        if here.get(section) is None:
            here[section] = {}
        here = here[section]
        if not isinstance(here, dict):
            raise InputError(f"{override!r}: {section} is a value, not a section")
    try:
        here[last] = yaml.load(value, Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{override!r}: {value!r} is not YAML") from error


def parse_recipe(values: dict, source: str, text: str = "") -> Recipe:
    """Return the recipe that the values give.

    Args:
        values: the recipe as nested mappings.
        source: where they come from, for errors.
        text: the YAML they were read from, for line numbers.

    Raises:
        InputError: one sentence about the first fault.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        # An unknown key is told before a missing one: it is usually the missing one misspelt.
        fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        line = _line_of(text, fault["loc"])
        place = f"{source}{f' line {line}' if line else ''}"
        raise InputError(f"{place}: {_sentence(fault)}") from error
