"""The `rewrite` section."""

from typing import Annotated, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class RewriteSection(Section):
    """Self-data distillation's data step: the dense model writes the answers."""

    engine: Literal["transformers"] = "transformers"
    """What generates."""
    max_new_tokens: Count = 256
    """Longest rewritten answer; longer ones count as truncated and the reference stays."""
    batch_size: Count = 32
    """Prompts generated together; part of what decides the answers."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
