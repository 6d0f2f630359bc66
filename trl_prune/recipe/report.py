"""The `report` section."""

from trl_prune.recipe.section import Count, Section


class ReportSection(Section):
    """The report."""

    title: str = "trl-prune report"
    """Its heading."""
    examples: Count = 6
    """Rewritten rows and answers to show."""
