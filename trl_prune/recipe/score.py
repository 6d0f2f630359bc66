"""The `score` section."""

from typing import ClassVar, Literal

from pydantic import model_validator

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
    """Maximum length of a calibration text, in tokens; never more than the model's context."""
    batch_size: Count = 8
    """Calibration texts per batch."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model that is larger than the accelerator over all accelerators, CPU memory and disk."""
    out_of_core: bool | None = None
    """Whether one decoder block at a time is in memory, with the states of all texts; the scores are the same. Left
    out: where the model does not fit in the free memory."""
    dataset: DatasetSection | None = None
    """Calibration texts; the recipe's own training rows if left out."""

    @model_validator(mode="after")
    def _check_one_way(self) -> "ScoreSection":
        if self.out_of_core and self.device_map is not None:
            raise ValueError("has `device_map` and `out_of_core`, which are two ways to score a large model; keep one")
        return self

    @property
    def determining(self) -> dict:
        """The keys and values that determine the scores."""
        return self.model_dump(mode="json", exclude={"out_of_core"})
