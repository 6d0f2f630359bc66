"""The `report` section."""

from trl_prune.recipe.section import Count, Section


class ReportSection(Section):
    """The report's pages."""

    title: str = "trl-prune report"
    """Heading of the pages."""
    examples: Count = 6
    """Number of rewritten rows to show."""
