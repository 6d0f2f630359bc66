"""The `score` section."""

from typing import ClassVar, Literal

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section


class ScoreSection(Section):
    """Importance of every unit, from one forward pass over calibration texts."""

    other_names: ClassVar[dict[str, str]] = {
        "calibration": "dataset", "limit": "samples", "max_seq_length": "max_length", "num_samples": "samples",
        "rows": "samples",
    }  # fmt: skip

    samples: Count = 256
    """Number of calibration texts."""
    tokens: Literal["all", "last"] = "all"
    """Positions that count for blocks: every token, or each text's last (2410.09982; needs 1,000 texts or more)."""
    max_length: Count = 512
    """Maximum length of a calibration text, in tokens."""
    batch_size: Count = 8
    """Calibration texts per batch."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model that is larger than the accelerator over all accelerators, CPU memory and disk."""
    dataset: DatasetSection | None = None
    """Calibration texts; the recipe's own training rows if left out."""
