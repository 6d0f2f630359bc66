"""Merge recipes: mergekit's YAML with placeholders for models and parameters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import yaml

from trl_prune.errors import InputError, closest, first_line
from trl_prune.merging.inputs import model_reference
from trl_prune.merging.placeholders import (
    BASE,
    DTYPE,
    EACH_MODEL,
    NUMBERED_MODEL,
    Filling,
    numbered_models,
    placeholders_in,
)


# Methods that divide by the sum of the weights.
NORMALISED = ("linear", "multislerp", "nuslerp")
# Parameters whose range is known: lowest and highest value, and whether the lowest is allowed.
RANGES = {"t": (0.0, 1.0, True), "density": (0.0, 1.0, False)}
# Parameters that are numbers whatever a recipe's default is.
NUMBERS = ("t", "weight", "density", "lambda")
# Keys of mergekit's that change the tokenizer or the blocks.
NOT_MERGED = ("tokenizer", "tokenizer_source", "chat_template", "slices", "modules")


@dataclass(frozen=True)
class MergeRecipe:
    """A merge recipe before its placeholders are filled.

    Attributes:
        name: a shipped recipe's name, or the path of a YAML.
        content: the YAML's content.
    """

    name: str
    content: Mapping[str, object] = field(repr=False)

    @classmethod
    def load(cls, name: str) -> "MergeRecipe":
        """Return a shipped recipe by its name, or one of the user's by its path.

        Raises:
            InputError: no such recipe, or one that does not merge models of one shape and tokenizer.
        """
        content = _parsed(_text(name), name)
        if not isinstance(content, dict) or not isinstance(content.get("merge_method"), str):
            raise InputError(f"the merge recipe {name!r} has no `merge_method`; wanted: a YAML of mergekit's")
        refused = next((key for key in NOT_MERGED if key in content), None)
        if refused:
            raise InputError(
                f"the merge recipe {name!r} has the key {refused!r}; only whole models of one shape and one tokenizer "
                "are merged: leave it out"
            )
        recipe = cls(name, content)
        if EACH_MODEL not in recipe.placeholders and not numbered_models(recipe.placeholders):
            raise InputError(f"the merge recipe {name!r} names no model as $model, or as $model_1 and $model_2")
        return recipe

    @property
    def method(self) -> str:
        """The merge method of mergekit's."""
        return str(self.content["merge_method"])

    @cached_property
    def placeholders(self) -> dict[str, str | None]:
        """The names of all placeholders, each with the YAML of its default, or None where it has none."""
        return placeholders_in(self.content)

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters that can be given."""
        others = (EACH_MODEL, BASE, DTYPE)
        return [name for name in self.placeholders if name not in others and not NUMBERED_MODEL.fullmatch(name)]

    @property
    def takes_base(self) -> bool:
        """Whether a base is to be given."""
        return BASE in self.placeholders

    @property
    def num_models(self) -> int | None:
        """The number of models that it merges, or None where it merges any number from two on."""
        return None if EACH_MODEL in self.placeholders else max(numbered_models(self.placeholders))

    @property
    def chains(self) -> bool:
        """Whether more than two models are merged one after the other: by slerp with one t."""
        return self.method == "slerp" and self.parameters == ["t"] and self.num_models == 2

    def searched(self, count: int) -> str | None:
        """Return what a search over a number of models changes: `t`, `weight`, or None where there is neither.

        It is t where that is the only parameter: two models merged by t = 0 and t = 1 are then the models alone.
        """
        if self.parameters == ["t"] and count == 2:
            return "t"
        return "weight" if "weight" in self.parameters else None

    def check(self, count: int, has_base: bool, parameters: Mapping[str, object]) -> None:
        """Check what the recipe is to be filled with.

        Args:
            count: the number of models.
            has_base: whether a base is given.
            parameters: the parameters that are given.

        Raises:
            InputError: the recipe merges another number of models, needs a base or takes none, or a parameter is
                unknown, missing, out of range or a list with another number of values.
        """
        self._check_count(count)
        if has_base != self.takes_base:
            needs = (
                "needs `base`, the pruned model that all were trained from" if self.takes_base else "takes no `base`"
            )
            raise InputError(f"the merge recipe {self.name!r} {needs}")
        for name, value in parameters.items():
            self._check_taken(name)
            _check_range(self.name, name, value, self._wants_numbers(name))
        missing = [name for name in self.parameters if self.placeholders[name] is None and name not in parameters]
        if missing:
            raise InputError(f"the merge recipe {self.name!r} has the placeholder ${missing[0]}, which is not given")
        self._check_weights(count, parameters)
        if not self.chains or count == self.num_models:
            # Filled with any models, so that a list with another number of values is refused.
            models = [Path(f"/model-{index}") for index in range(count)]
            self.fill(models, Path("/base") if has_base else None, "float32", parameters)

    def _check_count(self, count: int) -> None:
        any_number = self.num_models is None or self.chains
        if count < 2 or not (any_number or count == self.num_models):
            wanted = "2 or more" if any_number else self.num_models
            raise InputError(f"the merge recipe {self.name!r} merges {wanted} models, and {count} are given")

    def _check_taken(self, name: str) -> None:
        if name in self.parameters:
            return
        likely = closest(name, self.parameters)
        hint = f"did you mean {likely!r}?" if likely else f"allowed: {', '.join(self.parameters) or 'none'}"
        raise InputError(f"the merge recipe {self.name!r} has no parameter {name!r}; {hint}")

    def _wants_numbers(self, name: str) -> bool:
        """Return whether a parameter is known to be of numbers, or has a default of numbers."""
        return name in NUMBERS or all(map(_is_number, _leaves(self.value(name, {}))))

    def _check_weights(self, count: int, parameters: Mapping[str, object]) -> None:
        if self.chains and count > self.num_models and "t" in parameters:
            raise InputError(
                f"t is given for {count} models; {self.name} merges more than two one after the other with t = 1/2, "
                "1/3, ..., so that each weighs as much: leave t out, or give weights to `multislerp`"
            )
        weight = self.value("weight", parameters) if "weight" in self.parameters else None
        if self.method in NORMALISED and _sum(weight, count) <= 0:
            raise InputError(f"weight is {weight!r}; wanted: a positive sum, which {self.name} divides by")

    def value(self, name: str, parameters: Mapping[str, object]) -> object:
        """Return a parameter's value, given or by default."""
        return parameters[name] if name in parameters else _parsed(self.placeholders[name] or "null", self.name)

    def fill(
        self, models: Sequence[Path], base: Path | None, dtype: str, parameters: Mapping[str, object]
    ) -> dict[str, object]:
        """Return mergekit's configuration.

        Args:
            models: the models, as absolute paths.
            base: the base, as an absolute path; None where the recipe takes none.
            dtype: the dtype of the merged weights.
            parameters: values of parameters.

        Raises:
            InputError: a list has not one value for each model.
        """
        values = {name: self.value(name, parameters) for name in self.parameters}
        values |= {DTYPE: dtype, BASE: None if base is None else model_reference(base)}
        return Filling(self.name, [model_reference(model) for model in models], values).fill(self.content)


def shipped_recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    names = (path.name for path in files("mergekit_recipes").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def write_config(config: Mapping[str, object]) -> str:
    """Return mergekit's configuration as YAML."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=1000)


def _text(name: str) -> str:
    if name in shipped_recipes():
        return (files("mergekit_recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    likely = closest(name, shipped_recipes())
    hint = f"did you mean {likely!r}?" if likely else f"allowed: {', '.join(shipped_recipes())}, or a path"
    raise InputError(f"the merge recipe {name!r} is neither shipped nor a file; {hint}")


def _parsed(text: str, name: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"the merge recipe {name!r} is not YAML: {first_line(error)}") from error


def _check_range(recipe: str, name: str, value: object, wants_numbers: bool) -> None:
    """Check that all numbers of a value are finite, and those of a parameter with a known range inside it."""
    low, high, includes_low = RANGES.get("t" if name.endswith("_t") else name, (-math.inf, math.inf, True))
    is_bounded = math.isfinite(low)
    for number in _leaves(value):
        is_number = _is_number(number)
        fits = is_number and math.isfinite(number) and low <= number <= high and (includes_low or number > low)
        is_word = wants_numbers and isinstance(number, str | bool | None)
        if not fits and (is_number or is_bounded or is_word):
            bounds = f"a number from {low:g}{'' if includes_low else ' (excluded)'} to {high:g}"
            raise InputError(
                f"{name} of the merge recipe {recipe!r} is {number!r}; wanted: "
                f"{bounds if is_bounded else 'a finite number'}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _sum(weight: object, count: int) -> float:
    """Return the sum of the models' weights; of weights that change over the depth, that of their largest values."""
    weights = weight if isinstance(weight, list) else [weight] * count
    numbers = [[leaf for leaf in _leaves(one) if isinstance(leaf, int | float)] for one in weights]
    return sum(max(found, default=1.0) for found in numbers)
