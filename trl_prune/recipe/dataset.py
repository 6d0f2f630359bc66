"""The `dataset` section, and every other place of a recipe that names a dataset."""

from trl_prune.recipe.section import Count, Section


class DatasetSection(Section):
    """Where rows come from."""

    path: str
    """A local JSONL or parquet file, a hub id, or `quickstart`."""
    name: str | None = None
    """The hub dataset's configuration."""
    split: str = "train"
    """The hub dataset's split."""
    revision: str | None = None
    """The hub dataset's revision."""
    rows: Count | None = None
    """How many rows, drawn with the recipe's seed; all where left out."""
