"""The interface of a stage to the pipeline and the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.recipe import Recipe
from trl_prune.runs.artifacts import StageOutput


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trl_prune.runs.context import Run


def single_part(recipe: Recipe) -> list[str]:  # noqa: ARG001
    """Return the one unnamed part of a stage that is done in one piece."""
    return [""]


def always(recipe: Recipe) -> bool:  # noqa: ARG001
    """Return True: the stage belongs to every run."""
    return True


def needs_nothing(recipe: Recipe) -> list[str]:  # noqa: ARG001
    """Return no stages: the stage reads the dense model and the dataset only."""
    return []


def no_check(run: "Run") -> None:
    """Check nothing."""


@dataclass(frozen=True)
class Panel:
    """One figure or table of the report.

    Attributes:
        name: file name of the figure, or of the templates `NAME.html.j2` and `NAME.md.j2`, without suffix.
        is_available: whether a run's results (`reporting.results.RunResults`) have what it shows.
        draw: returns the figure of a run's results; None for a table, which its templates render.
        caption: of the figure.
    """

    name: str
    is_available: Callable[..., object]
    draw: "Callable[..., Figure] | None" = None
    caption: str = ""


@dataclass(frozen=True)
class Stage:
    """A verb of the recipe.

    Attributes:
        name: the verb: recipe section, folder and command-line verb.
        inputs: of a part, the fingerprints of what it reads, by name.
        settings: of a part, what determines its outputs besides its inputs.
        execute: does a part in its folder, resuming what an interrupted attempt left there.
        describe: of a part, one line about what it will do.
        parts: the parts that are done, skipped and resumed separately (arms, models).
        needs: the stages whose results it reads.
        is_configured: whether a run of the recipe includes it.
        check: raises InputError for the user's mistakes before anything expensive starts.
        panels: what the report shows of it, in order.
        keeps: names in a part's folder that stay when inputs or settings change, because their own keys tell what is
            still valid.
        show: prints its result on the terminal; None prints its folder.
    """

    name: str
    inputs: "Callable[[Run, str], dict[str, str]]"
    settings: "Callable[[Run, str], dict]"
    execute: "Callable[[Run, str, Path], StageOutput]"
    describe: "Callable[[Run, str], str]"
    parts: Callable[[Recipe], list[str]] = single_part
    needs: Callable[[Recipe], list[str]] = needs_nothing
    is_configured: Callable[[Recipe], bool] = always
    check: "Callable[[Run], None]" = no_check
    keeps: tuple[str, ...] = ()
    panels: tuple[Panel, ...] = ()
    show: "Callable[[Run], None] | None" = None
