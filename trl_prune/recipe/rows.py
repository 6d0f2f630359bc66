"""The `rows` section."""

from typing import ClassVar, Literal

from trl_prune.recipe.section import Section


class RowsSection(Section):
    """What happens to rows that cannot be used, in every dataset of the recipe."""

    other_names: ClassVar[dict[str, str]] = {"errors": "on_error", "skip": "on_error", "strict": "on_error"}

    on_error: Literal["stop", "skip"] = "stop"
    """Whether such a row stops the run with its file, line and column, or is skipped; skipped rows are counted."""
