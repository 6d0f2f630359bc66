"""Closed-form repairs: changes to the weights that stay, so that a cut costs less before any training.

Each is an object that surgery calls with every tensor it writes (`surgery.Repair`); the checkpoint stays a stock one,
and the provenance's `edits` say what was done.
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from trl_prune.errors import InputError
from trl_prune.pruning.repairs import head_merge, least_squares, linear_map, norm_rescale
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import Repair
from trl_prune.pruning.surgery.cut import Cut


class RepairMethod(NamedTuple):
    """A kind of repair: `check` says early if it fits a cut, `build` fits it; both take its options by keyword."""

    check: Callable[..., None]
    build: Callable[..., Repair]


# In the order in which they are made.
REPAIRS: dict[str, RepairMethod] = {
    "head_merge": RepairMethod(head_merge.check, head_merge.build),
    "least_squares": RepairMethod(least_squares.check, least_squares.build),
    "linear_map": RepairMethod(linear_map.check, linear_map.build),
    "norm_rescale": RepairMethod(norm_rescale.check, norm_rescale.build),
}


def check_repairs(wanted: Mapping[str, Mapping[str, object]], source: Path, cut: Cut) -> None:
    """Check, before anything heavy, that repairs exist, take their options and fit a cut.

    Raises:
        InputError: one does not.
    """
    for name, options in wanted.items():
        if name not in REPAIRS:
            raise InputError(f"{name!r} is no repair; allowed: {', '.join(REPAIRS)}")
        _check_options(name, options)
        REPAIRS[name].check(source, cut, **options_of(name) | options)
    if {"head_merge", "least_squares"} <= wanted.keys() and "num_attention_heads" in cut.keep:
        raise InputError("head_merge changes the heads that least_squares fits o_proj to; choose one of the two")


def _check_options(name: str, options: Mapping[str, object]) -> None:
    known = options_of(name)
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{name} has no option {option!r}; allowed: {', '.join(known)}")
        kinds = {float: (int, float), str: str, tuple: (list, tuple)}[type(known[option])]
        if isinstance(value, bool) or not isinstance(value, kinds):
            wanted = {float: "a number", str: "a word", tuple: "a list"}[type(known[option])]
            raise InputError(f"{name}.{option} is {value!r}; wanted: {wanted}")


def options_of(name: str) -> dict[str, object]:
    """Return a repair's options with their defaults."""
    parameters = inspect.signature(REPAIRS[name].build).parameters.values()
    return {told.name: told.default for told in parameters if told.kind is inspect.Parameter.KEYWORD_ONLY}


def repairs_for(
    wanted: Mapping[str, Mapping[str, object]], source: Path, cut: Cut, calibration: Calibration
) -> list[Repair]:
    """Fit repairs to a cut.

    Args:
        wanted: the options of each repair, by its name.
        source: the dense checkpoint's folder.
        cut: the plan at work.
        calibration: the dense model, the texts and a scratch folder, used where a repair needs them.

    Returns:
        The repairs for `surgery.prune_checkpoint`, in the order in which they are made.

    Raises:
        InputError: a name or option that is not known, or a repair that does not fit the cut.
    """
    check_repairs(wanted, source, cut)
    return [kind.build(source, cut, calibration, **wanted[name]) for name, kind in REPAIRS.items() if name in wanted]


def fitting_repairs(source: Path, cut: Cut) -> list[str]:
    """Return the repairs that fit a cut."""

    def fits(name: str) -> bool:
        try:
            REPAIRS[name].check(source, cut, **options_of(name))
        except InputError:
            return False
        return True

    return [name for name in REPAIRS if fits(name)]
