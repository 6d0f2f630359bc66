"""The `dataset` section, used wherever a recipe names a dataset."""

from typing import ClassVar

from trl_prune.recipe.section import Count, Section


class DatasetSection(Section):
    """Which rows to read."""

    other_names: ClassVar[dict[str, str]] = {
        "config": "name", "config_name": "name", "data_files": "path", "limit": "rows", "max_samples": "rows",
        "num_samples": "rows", "samples": "rows", "subset": "name",
    }  # fmt: skip

    path: str
    """A local file (JSON lines, CSV, parquet, ...), a pattern or a folder of such, a hub id, or `quickstart`."""
    name: str | None = None
    """Configuration of a hub dataset or a folder."""
    split: str = "train"
    """Split of a hub dataset or a folder."""
    revision: str | None = None
    """Revision of a hub dataset."""
    rows: Count | None = None
    """Number of rows, drawn with the recipe's seed; all if left out."""
