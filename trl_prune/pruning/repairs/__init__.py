"""Closed-form repairs: changes to the kept weights that reduce the loss from a cut before any training.

Surgery calls a repair with every tensor it writes (`surgery.checkpoint.Repair`); the output stays a stock checkpoint,
and the provenance's `edits` record what was changed.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from trl_prune.errors import InputError
from trl_prune.pruning.repairs import head_merge, least_squares, linear_map, magnitude, norm_rescale
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import Repair
from trl_prune.pruning.surgery.cut import Cut


# The type of an option, by the type of its default: accepted types and their name in errors.
OPTION_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    str: ((str,), "a string"),
    tuple: ((list, tuple), "a list"),
}


Options = Mapping[str, object]


def _always(_: Options) -> bool:
    return True


def _never(_: Options) -> bool:
    return False


def _none(_: Cut) -> int:
    return 0


class RepairMethod(NamedTuple):
    """A kind of repair.

    Attributes:
        check: raises if the repair does not apply to a cut; takes its options by keyword.
        build: fits it; takes its options by keyword.
        reads_texts: returns whether it runs the dense model on calibration texts, by the given options.
        num_inputs: returns how many inputs the largest of a cut's fits has; 0 if nothing is fitted.
    """

    check: Callable[..., None]
    build: Callable[..., Repair]
    reads_texts: Callable[[Options], bool]
    num_inputs: Callable[[Cut], int] = _none


# In the order in which they are applied.
REPAIRS: dict[str, RepairMethod] = {
    "head_merge": RepairMethod(head_merge.check, head_merge.build, _never),
    "least_squares": RepairMethod(least_squares.check, least_squares.build, _always, least_squares.num_inputs),
    "linear_map": RepairMethod(linear_map.check, linear_map.build, _always, linear_map.num_inputs),
    "magnitude": RepairMethod(magnitude.check, magnitude.build, _always),
    "norm_rescale": RepairMethod(norm_rescale.check, norm_rescale.build, norm_rescale.reads_texts),
}


def check_repairs(requested: Mapping[str, Options], source: Path, cut: Cut) -> None:
    """Check, without loading a model, that repairs exist, have valid options and apply to a cut.

    Raises:
        InputError: a repair does not.
    """
    for name, options in requested.items():
        if name not in REPAIRS:
            raise InputError(f"{name!r} is not a repair; allowed: {', '.join(REPAIRS)}")
        _check_options(name, options)
        REPAIRS[name].check(source, cut, **default_options(name) | options)
    if {"head_merge", "least_squares"} <= requested.keys() and "num_attention_heads" in cut.keep:
        raise InputError("head_merge changes the heads that least_squares fits o_proj to; choose one of the two")
    if {"linear_map", "magnitude"} <= requested.keys():
        raise InputError("linear_map gives the stream the magnitude that magnitude corrects; choose one of the two")


def _check_options(name: str, options: Options) -> None:
    defaults = default_options(name)
    for option, value in options.items():
        if option not in defaults:
            raise InputError(f"{name} has no option {option!r}; allowed: {', '.join(defaults)}")
        types, description = OPTION_TYPES[type(defaults[option])]
        if isinstance(value, bool) or not isinstance(value, types):
            raise InputError(f"{name}.{option} is {value!r}; wanted: {description}")


def default_options(name: str) -> dict[str, object]:
    """Return a repair's options with their defaults."""
    parameters = inspect.signature(REPAIRS[name].build).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is inspect.Parameter.KEYWORD_ONLY}


def build_repairs(requested: Mapping[str, Options], source: Path, cut: Cut, calibration: Calibration) -> list[Repair]:
    """Fit repairs to a cut.

    Args:
        requested: the options of each repair, by its name.
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: the dense model, the texts and a cache folder, used if a repair needs them.

    Returns:
        The repairs for `prune_checkpoint`, in the order in which they are applied.

    Raises:
        InputError: an unknown repair or option, or a repair that does not apply to the cut.
    """
    check_repairs(requested, source, cut)
    return [
        method.build(source, cut, calibration, **requested[name])
        for name, method in REPAIRS.items()
        if name in requested
    ]


def read_texts(requested: Mapping[str, Options]) -> bool:
    """Return whether any of the repairs, given by name with their options, runs the dense model on texts."""
    return any(method.reads_texts(requested[name]) for name, method in REPAIRS.items() if name in requested)


def applicable_repairs(source: Path, cut: Cut) -> list[str]:
    """Return the names of the repairs that apply to a cut."""

    def applies(name: str) -> bool:
        try:
            REPAIRS[name].check(source, cut, **default_options(name))
        except InputError:
            return False
        return True

    return [name for name in REPAIRS if applies(name)]
