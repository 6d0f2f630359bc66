"""What a stage is to the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trl_prune.runs.artifacts import StageOutput
from trl_prune.recipe import Recipe
from trl_prune.runs.context import Run


def one_unit(recipe: Recipe) -> list[str]:  # noqa: ARG001
    """Return the one nameless unit of a stage that is done in one piece."""
    return [""]


def no_check(run: Run) -> None:
    """Find nothing to check."""


@dataclass(frozen=True)
class Stage:
    """A verb of the recipe.

    Attributes:
        name: the verb: recipe section, folder and CLI word.
        inputs: for a unit, what it reads, by name to hash.
        settings: for a unit, what decides its outputs besides its inputs.
        work: does a unit in a folder.
        plan: says in one line what the work will be, without doing any.
        units: what of the stage is done, skipped and resumed by itself (an arm, a model).
        check: finds the user's mistakes before anything expensive starts.
    """

    name: str
    inputs: Callable[[Run, str], dict[str, str]]
    settings: Callable[[Run, str], dict]
    work: Callable[[Run, str, Path], StageOutput]
    plan: Callable[[Run, str], str]
    units: Callable[[Recipe], list[str]] = one_unit
    check: Callable[[Run], None] = no_check
