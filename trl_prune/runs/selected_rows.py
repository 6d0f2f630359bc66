"""The rows that the `select` stage chose, for the stages that use them."""

import json
from collections.abc import Sequence

from datasets import Dataset

from trl_prune.data.selection.budget import resolve_budget
from trl_prune.errors import InputError
from trl_prune.recipe import ArmSection
from trl_prune.recipe.recover import SourceSection
from trl_prune.runs.artifacts import config_hash
from trl_prune.runs.context import Run


SELECTIONS = "selections"


def selection_name(run: Run, arm: ArmSection) -> str:
    """Return the name of the selection that an arm trains on."""
    return arm.selection or run.recipe.select.method


def uses_selection(run: Run, source: SourceSection) -> bool:
    """Return whether a source of an arm has selected rows: the recipe's dataset, where the recipe selects."""
    return run.recipe.select is not None and source.dataset is None


def selected_rows(run: Run, name: str) -> list[int]:
    """Return the indices in the recipe's dataset of a selection's rows, in rising order.

    Raises:
        InputError: the rows are not selected yet, or were selected by a recipe without this selection.
    """
    path = run.folder.output("select", SELECTIONS)
    selections = json.loads(path.read_text())
    if name not in selections:
        raise InputError(
            f"{path} has no selection {name!r}, only {', '.join(selections)}: run `trl-prune select` again first, or "
            "leave out --only"
        )
    return selections[name]


def planned_count(run: Run, name: str) -> int:
    """Return the largest number of rows that a selection can have, before it is made.

    Only `full` may have fewer: it is counted as the whole dataset, and leaves out duplicates and rows without an
    answer. `random_matched` has as many rows as the section's own selection, whatever its budget.

    Raises:
        InputError: the budget is larger than the dataset.
    """
    section, rows = run.recipe.selections[name], len(run.dataset)
    if section.method == "random_matched":
        return planned_count(run, run.recipe.select.method)
    return rows if section.method == "full" else resolve_budget(section.budget, rows)


def rewritten_selections(run: Run) -> list[str]:
    """Return the names of the selections whose rows are rewritten: those of the arms that train on rewritten rows."""
    arms = [arm for arm in run.recipe.recover.values() if arm.uses_rewritten]
    names = dict.fromkeys(selection_name(run, arm) for arm in arms)
    return list(names) or [run.recipe.select.method]


def indices_to_rewrite(run: Run) -> list[int] | None:
    """Return the indices in the recipe's dataset of the rows that are rewritten; None for all."""
    if run.recipe.select is None:
        return None
    return sorted({index for name in rewritten_selections(run) for index in selected_rows(run, name)})


def rows_to_rewrite(run: Run) -> Dataset:
    """Return the rows that are rewritten, in the dataset's order."""
    indices = indices_to_rewrite(run)
    return run.dataset if indices is None else run.dataset.select(indices)


def positions_in_rewritten(run: Run, indices: Sequence[int]) -> list[int]:
    """Return where rows of the recipe's dataset are among the rewritten ones.

    Raises:
        InputError: other rows are rewritten than this recipe's.
    """
    rewritten = indices_to_rewrite(run)
    if run.folder.require("rewrite").inputs.get("rows") != config_hash(rewritten):
        raise InputError(
            f"{run.folder.stage_dir('rewrite')} has the rows of other selections: run `trl-prune rewrite` again "
            "first, or leave out --only"
        )
    positions = {index: position for position, index in enumerate(rewritten)}
    return [positions[index] for index in indices]


def count_to_rewrite(run: Run) -> int:
    """Return how many rows will be rewritten at most, before the rows are selected."""
    if run.recipe.select is None:
        return len(run.dataset)
    return min(len(run.dataset), sum(planned_count(run, name) for name in rewritten_selections(run)))
