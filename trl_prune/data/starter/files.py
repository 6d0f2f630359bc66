"""Read the data files of this package; each is checked against its fields and read once."""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter


class Entry(BaseModel, frozen=True, extra="forbid"):
    """The fields of one entry of a data file; unknown fields are an error."""


class Wordings(Entry):
    """Prompts and completions to choose from, with slots for the fields of a table's entry."""

    prompts: tuple[str, ...]
    completions: tuple[str, ...]


EntryT = TypeVar("EntryT", bound=Entry)
ContentT = TypeVar("ContentT")


@cache
def read_jsonl(name: str, entry: type[EntryT]) -> tuple[EntryT, ...]:
    """Return the entries of a JSONL file, one per line."""
    with _path(name).open(encoding="utf-8") as lines:
        return tuple(entry.model_validate_json(line) for line in lines)


@cache
def read_yaml(name: str, content: type[ContentT]) -> ContentT:
    """Return the content of a YAML file as an entry or a mapping of entries."""
    return TypeAdapter(content).validate_python(yaml.safe_load(_path(name).read_text(encoding="utf-8")))


def _path(name: str) -> Traversable:
    return files(__package__).joinpath(name)
