"""The `score` section."""

from typing import Literal

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section


class ScoreSection(Section):
    """Importance of the decoder blocks."""

    samples: Count = 256
    """Calibration texts."""
    tokens: Literal["all", "last"] = "all"
    """Positions that count: every token, or each text's last (the paper's choice, which wants 1,000 texts or more)."""
    max_length: Count = 512
    """Longest calibration text, in tokens."""
    batch_size: Count = 8
    """Calibration texts at a time."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model that is larger than the accelerator over all of them, CPU memory and disk."""
    dataset: DatasetSection | None = None
    """Calibration texts; the recipe's own training rows where left out."""
