"""Named placeholders in a mergekit YAML, and what fills them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trl_prune.errors import InputError


# The placeholders that are not parameters: each model in turn, one of them, the base, the stored dtype.
EACH_MODEL, BASE, DTYPE = "model", "base", "dtype"
NUMBERED_MODEL = re.compile(r"model_(\d+)")
PLACEHOLDER = re.compile(r"\$(?:(?P<name>\w+)|\{(?P<braced>\w+)(?::-(?P<default>.*))?\})", re.DOTALL)


def placeholders_in(node: object) -> dict[str, str | None]:
    """Return the names of the placeholders in a YAML's content, each with the YAML of its default, or None."""
    found: dict[str, str | None] = {}
    for text in _strings(node):
        match = PLACEHOLDER.fullmatch(text)
        if match:
            name = match["name"] or match["braced"]
            found[name] = found.get(name) or match["default"]
    return found


def _strings(node: object) -> Iterator[str]:
    children: Collection[object] = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, str):
        yield node
    for child in children:
        yield from _strings(child)


def numbered_models(names: Collection[str]) -> list[int]:
    """Return the numbers of the placeholders `$model_1`, `$model_2`, ... among names."""
    return [int(match[1]) for name in names if (match := NUMBERED_MODEL.fullmatch(name))]


@dataclass(frozen=True)
class Filling:
    """What a recipe's placeholders are filled with.

    Attributes:
        recipe: the recipe's name, for errors.
        models: the models, as mergekit names them.
        values: of all other placeholders.
    """

    recipe: str
    models: Sequence[object]
    values: Mapping[str, object]

    def fill(self, node: object, model: int | None = None) -> object:
        """Return a YAML's content with its placeholders filled.

        A list's item that names `$model` is repeated for each model. In an item that is about one model, a parameter
        given as a list has a value for each model.

        Args:
            node: the content, or a part of it.
            model: the place of the model that this part is about, counted from 0.

        Raises:
            InputError: a list has not one value for each model.
        """
        if isinstance(node, dict):
            return {key: self.fill(value, model) for key, value in node.items()}
        if isinstance(node, list):
            return [self.fill(item, place) for item in node for place in self._places(item, model)]
        match = PLACEHOLDER.fullmatch(node) if isinstance(node, str) else None
        return self._value(match["name"] or match["braced"], model) if match else node

    def _places(self, item: object, model: int | None) -> Sequence[int | None]:
        """Return the places of the models that a list's item is about."""
        names = placeholders_in(item)
        if EACH_MODEL in names:
            return range(len(self.models))
        return [number - 1 for number in numbered_models(names)][:1] or [model]

    def _value(self, name: str, model: int | None) -> object:
        if name == EACH_MODEL:
            return self.models[model]
        if NUMBERED_MODEL.fullmatch(name):
            return self.models[numbered_models([name])[0] - 1]
        value = self.values[name]
        if model is None or not isinstance(value, list):
            return value
        if len(value) != len(self.models):
            raise InputError(
                f"{name} is {value!r}; wanted: one number, or one for each of the {len(self.models)} models that the "
                f"merge recipe {self.recipe!r} merges"
            )
        return value[model]
