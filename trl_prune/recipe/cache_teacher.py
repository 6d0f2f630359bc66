"""The `cache_teacher` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class CacheTeacherSection(Section):
    """Offline distillation: the dense model reads every training row once, and its predictions are stored."""

    other_names: ClassVar[dict[str, str]] = {"k": "top_k", "num_samples": "draws", "samples": "draws"}

    tier: Literal["sampled", "topk", "hidden"] = "sampled"
    """A systematic sample (smallest), the likeliest ids and the mass of the rest, or final states (exact, largest)."""
    draws: Annotated[int, Field(ge=1, le=64)] = 50
    """For `sampled`: draws per token."""
    top_k: Count = 64
    """For `topk`: ids per token."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """For `topk`: the temperature that it serves; `sampled` serves 1, `hidden` any."""
    batch_size: Count = 16
    """Sequences per batch."""
