"""The `synthesize` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class SynthesizeSection(Section):
    """How the dense model writes training rows, for datasets with `synthesize` (2406.08464)."""

    other_names: ClassVar[dict[str, str]] = {
        "backend": "engine", "max_length": "max_new_tokens", "max_tokens": "max_new_tokens", "vllm": "engine",
    }  # fmt: skip

    engine: Literal["transformers", "vllm"] = "transformers"
    """Library that generates; no server, because none goes on with an open user's turn."""
    engine_kwargs: dict[str, object] = Field(default_factory=dict)
    """The engine's arguments, as those of `rewrite`."""
    max_prompt_tokens: Count = 128
    """Maximum length of a user's turn; a longer one is dropped."""
    max_new_tokens: Count = 256
    """Maximum length of an answer; a longer one is dropped with its prompt."""
    prompt_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Sampling temperature of users' turns."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature of answers; 0 is greedy."""
    batch_size: Count = 32
    """Texts generated together, and stored together."""
