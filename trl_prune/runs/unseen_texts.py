"""Whether texts on which models are judged or chosen are new to them."""

from collections.abc import Mapping
from textwrap import shorten

from datasets import Dataset

from trl_prune.data.formats import FORMAT_COLUMNS, Row
from trl_prune.errors import InputError
from trl_prune.recipe import DatasetSection
from trl_prune.runs.context import Run
from trl_prune.runs.training_rows import dataset_origin


# Characters of a text in an error.
QUOTED = 60
TRAINED_ON = "which arms train on"


def check_unseen(
    run: Run, key: str, section: DatasetSection, others: Mapping[DatasetSection, str] | None = None
) -> None:
    """Check that texts can be read and that none is a row of a dataset that arms train on, or of another.

    Args:
        run: the run.
        key: the texts' key in the recipe, for the error.
        section: the texts.
        others: further datasets that they must share no row with, each with a clause that says what it is.

    Raises:
        InputError: they share a row, or cannot be read.
    """
    known = {contents for row in _texts(run, section) if any(contents := _contents(row))}
    seen = dict.fromkeys(run.recipe.training_datasets, TRAINED_ON) | dict(others or {})
    for other, clause in seen.items():
        hint = "name texts that they do not" if clause == TRAINED_ON else "name other texts"
        if dataset_origin(section) == dataset_origin(other):
            raise InputError(f"{key} is {section.path!r}, split {section.split!r}, {clause}; {hint}")
        shared = known.intersection(_contents(row) for row in _texts(run, other))
        if shared:
            raise InputError(
                f"{key} is {section.path!r}, and {len(shared):,} of its {len(known):,} texts are rows of "
                f"{other.path!r}, {clause}, such as {shorten(' '.join(min(shared)), QUOTED)!r}; {hint}"
            )


def _texts(run: Run, section: DatasetSection) -> Dataset:
    rows = run.rows(section)
    return rows.select_columns([name for names in FORMAT_COLUMNS for name in names if name in rows.column_names])


def _contents(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, equal for a row in another of TRL's formats."""
    present = (names for names in FORMAT_COLUMNS if all(row.get(name) is not None for name in names))
    found = []
    for name in next(present, ()):
        value = row[name]
        found += [value] if isinstance(value, str) else [message.get("content") or "" for message in value]
    return tuple(map(str, found))
