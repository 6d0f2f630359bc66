"""The `dataset` section, used wherever a recipe names a dataset."""

from typing import ClassVar

from pydantic import model_validator

from trl_prune.recipe.section import Count, Section


# The path of rows that the dense model writes.
SYNTHESIZED = "synthesized"


class DatasetSection(Section):
    """Which rows to read."""

    other_names: ClassVar[dict[str, str]] = {
        "config": "name", "config_name": "name", "data_files": "path", "limit": "rows", "max_samples": "rows",
        "num_samples": "rows", "samples": "rows", "subset": "name",
    }  # fmt: skip

    path: str
    """A local file (JSON lines, CSV, parquet, ...), a pattern or a folder of such, a hub id, `quickstart`, or
    `synthesized`: so many `rows` that the dense model writes, for short `{synthesize: ROWS}`."""
    name: str | None = None
    """Configuration of a hub dataset or a folder."""
    split: str = "train"
    """Split of a hub dataset or a folder."""
    revision: str | None = None
    """Revision of a hub dataset."""
    rows: Count | None = None
    """Number of rows, drawn with the recipe's seed; all if left out."""

    @model_validator(mode="before")
    @classmethod
    def _read_synthesize(cls, values: object) -> object:
        if not isinstance(values, dict) or "synthesize" not in values:
            return values
        if len(values) > 1:
            other = next(name for name in values if name != "synthesize")
            raise ValueError(f"has `synthesize`, the number of rows that the dense model writes, and `{other}`")
        return {"path": SYNTHESIZED, "rows": values["synthesize"]}

    @model_validator(mode="after")
    def _check_synthesized(self) -> "DatasetSection":
        if self.is_synthesized and self.rows is None:
            raise ValueError(f"requires `rows`, the number to write, with the path {SYNTHESIZED!r}")
        return self

    @property
    def is_synthesized(self) -> bool:
        """Whether the dense model writes the rows."""
        return self.path == SYNTHESIZED
