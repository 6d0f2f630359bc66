"""Load a recipe from YAML, apply overrides and validate it."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trl_prune.errors import InputError, first_line, shown
from trl_prune.recipe.auto import with_auto_arms
from trl_prune.recipe.evaluate import EvaluateSection
from trl_prune.recipe.messages import error_sentence, line_of
from trl_prune.recipe.recipe import Recipe
from trl_prune.recipe.rewrite import RewriteSection
from trl_prune.recipe.section import Section
from trl_prune.recipe.select import SelectSection
from trl_prune.recipe.speculate import SpeculateSection


COMMAND_LINE = "the command line"
# How many values aliases may stand for; without them a text has fewer values than characters.
MAX_ALIASED = 100_000
SectionType = TypeVar("SectionType", bound=Section)


class Loader(yaml.SafeLoader):
    """A YAML loader that reads `1e-4` as a number, as YAML 1.2 does; YAML 1.1 requires `1.0e-4`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        """Return a node's value.

        Raises:
            ConstructorError: its text is no value of its type, as that of the date 2024-13-45; PyYAML raises whatever
                Python's own types raise.
        """
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"{shown(node.value)} is no {kind}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
# A recipe is kept as JSON and YAML, so it has no bytes and no sets.
for tag in ("binary", "set"):
    Loader.add_constructor(f"tag:yaml.org,2002:{tag}", Loader.construct_undefined)


def load_recipe(path: Path | None, overrides: list[str]) -> Recipe:
    """Return the recipe of a file with `section.key=value` overrides applied.

    Raises:
        InputError: no such file, invalid YAML, an unknown key or a wrong value; the sentence names file, line and key.
    """
    text = _read(path) if path else ""
    values = _parse_yaml(text, path)
    for override in overrides:
        values = with_auto_arms(values)
        _apply_override(values, override)
    return parse_recipe(values, str(path) if path else COMMAND_LINE, text, overrides)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"the recipe {path} cannot be read: {reason}") from error


def _parse_yaml(text: str, path: Path | None) -> dict:
    try:
        values = _without_aliases(_limited(yaml.load(text, Loader), text, str(path))) or {}
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be a recipe") from error
    except yaml.YAMLError as error:
        position = getattr(error, "problem_mark", None)
        line = f" line {position.line + 1}" if position else ""
        raise InputError(
            f"{path}{line} is not YAML: {getattr(error, 'problem', None) or first_line(error)}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; wanted: a mapping of sections")
    return values


def _limited(value: object, text: str, source: str) -> object:
    """Return the value of a YAML text, unless it is endless or grows beyond any recipe once its aliases are copied.

    A few lines of aliases of aliases stand for billions of values, and an alias of what holds it for endless ones.
    """
    if _expanded_size(value, {}) > len(text) + MAX_ALIASED:
        raise InputError(f"{source} has aliases that stand for more than {MAX_ALIASED:,} values")
    return value


def _expanded_size(value: object, known: dict[int, float]) -> float:
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # of a value in itself
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded_size(one, known) for one in inner)
    return known[id(value)]


def _without_aliases(value: object) -> object:
    """Copy mappings that YAML aliases share, so that an override of one arm leaves the others unchanged."""
    if isinstance(value, dict):
        return {key: _without_aliases(inner) for key, inner in value.items()}
    return [_without_aliases(inner) for inner in value] if isinstance(value, list) else value


def _apply_override(values: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{shown(override)} is no override; wanted: section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise InputError(f"{shown(override)}: {section} is a value, not a section")
    try:
        values[last] = _limited(yaml.load(value, Loader), value, repr(key))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{shown(override)}: {shown(value)} is not YAML") from error


def parse_words(words: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """Return the words of a command line that are no `key=value`, and the values, which are YAML.

    Raises:
        InputError: a value is not YAML.
    """
    values: dict[str, object] = {}
    for word in words:
        if "=" in word:
            _apply_override(values, word)
    return [word for word in words if "=" not in word], values


def parse_recipe(values: dict, source: str, text: str = "", overrides: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as nested mappings.

    Args:
        values: the recipe.
        source: what the values were read from, for errors.
        text: the YAML they were read from, for line numbers.
        overrides: those that are applied to the values already, for errors in one of them.

    Raises:
        InputError: one sentence about the first invalid key.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = _first_error(error)
        raise InputError(f"{_place(first['loc'], source, text, overrides)}: {error_sentence(first)}") from error


def parse_rewrite(values: dict, source: str) -> RewriteSection:
    """Validate a `rewrite` section alone.

    Raises:
        InputError: one sentence about the first invalid key.
    """
    return _parse_section(RewriteSection, "rewrite", values, source)


def parse_select(values: dict, source: str) -> SelectSection:
    """Validate a `select` section alone.

    Raises:
        InputError: one sentence about the first invalid key.
    """
    return _parse_section(SelectSection, "select", values, source)


def parse_evaluate(values: dict, source: str) -> EvaluateSection:
    """Validate an `evaluate` section alone.

    Raises:
        InputError: one sentence about the first invalid key.
    """
    return _parse_section(EvaluateSection, "evaluate", values, source)


def parse_speculate(values: dict, source: str) -> SpeculateSection:
    """Validate a `speculate` section alone.

    Raises:
        InputError: one sentence about the first invalid key.
    """
    return _parse_section(SpeculateSection, "speculate", values, source)


def _parse_section(section: type[SectionType], name: str, values: dict, source: str) -> SectionType:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = _first_error(error)
        raise InputError(f"{source}: {error_sentence(first | {'loc': (name, *first['loc'])})}") from error


def _first_error(error: ValidationError) -> ErrorDetails:
    """Return the error to report: an unknown key before a missing one, which is usually the missing one misspelt."""
    return min(error.errors(), key=lambda details: details["type"] != "extra_forbidden")


def _place(loc: tuple[str | int, ...], source: str, text: str, overrides: Sequence[str]) -> str:
    """Return where a key was given: on the command line, or in which line of the file."""
    key = ".".join(map(str, loc))
    if any(f"{key}.".startswith(f"{override.partition('=')[0]}.") for override in overrides):
        return COMMAND_LINE
    line = line_of(text, loc)
    return f"{source}{f' line {line}' if line else ''}"
