"""The `rewrite` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class RewriteSection(Section):
    """Self-data distillation's data step (2410.09982): the dense model writes the answers."""

    other_names: ClassVar[dict[str, str]] = {
        "backend": "engine",
        "max_length": "max_new_tokens",
        "max_tokens": "max_new_tokens",
    }

    engine: Literal["transformers"] = "transformers"
    """Library that generates."""
    max_new_tokens: Count = 256
    """Maximum length of a rewritten answer; a longer one counts as truncated and the reference is kept."""
    batch_size: Count = 32
    """Prompts generated together; changes the answers, since padding changes rounding."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
