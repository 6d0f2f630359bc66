"""The `cache_teacher` section."""

from typing import Annotated, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class CacheTeacherSection(Section):
    """Offline distillation: the dense model reads every training row once, and its words are kept for all epochs."""

    tier: Literal["sampled", "topk", "hidden"] = "sampled"
    """A systematic sample (smallest), the likeliest ids with the others' mass, or final states (exact, largest)."""
    draws: Annotated[int, Field(ge=1, le=64)] = 50
    """`sampled`: draws a token."""
    k: Count = 64
    """`topk`: ids a token."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """`topk`: the temperature it serves; `sampled` serves 1, `hidden` any."""
    batch_size: Count = 16
    """Sequences read together."""
