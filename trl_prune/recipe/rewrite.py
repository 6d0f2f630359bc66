"""The `rewrite` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trl_prune.recipe.section import Count, Section


class RewriteSection(Section):
    """Self-data distillation's data step (2410.09982): the dense model writes the answers."""

    other_names: ClassVar[dict[str, str]] = {
        "backend": "engine", "base_url": "engine_kwargs.url", "concurrency": "engine_kwargs.concurrency",
        "max_length": "max_new_tokens", "max_tokens": "max_new_tokens", "n": "samples", "num_samples": "samples",
        "server": "engine_kwargs.url", "template": "answer_types", "type": "answer_type", "url": "engine_kwargs.url",
        "vllm": "engine",
    }  # fmt: skip

    engine: Literal["transformers", "vllm", "server"] = "transformers"
    """Library that generates, or an OpenAI-compatible server that has the dense model."""
    engine_kwargs: dict[str, object] = Field(default_factory=dict)
    """The engine's arguments: `url`, `model`, `endpoint`, `concurrency`, `timeout_s`, `retries` and `api_key_env` of a
    server; those of `vllm.LLM`; `continuous` (batching) of transformers."""
    max_new_tokens: Count = 256
    """Maximum length of a rewritten answer; a longer one counts as truncated and the reference is kept."""
    batch_size: Count = 32
    """Prompts generated together, and stored together."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    samples: Count = 1
    """Answers generated at most for each reference; the first accepted one is used."""
    answer_type: str = "auto"
    """Type of rows whose `answer_type` column names none; `auto` goes by the dataset's name, else by the reference."""
    answer_types: dict[str, object] = Field(default_factory=dict)
    """Types of your own, as in the shipped `answer_types.yaml`; one with a shipped name replaces it."""
    response_template: str | None = None
    """What stands between prompt and answer in rows of text, such as `### Response:`."""
    thoughts: Literal["cut", "keep"] = "cut"
    """Whether a reasoning model's thoughts are cut from its answers, or kept and trained on."""
    train_prompts: bool = False
    """Whether training prompts become those of the answer types that have one."""
    run_tests: bool = False
    """Whether rewritten code is run, with the tests in its row's `tests` column."""

    @model_validator(mode="after")
    def _check_samples(self) -> "RewriteSection":
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples is {self.samples}, but at temperature 0 all are the same; set `temperature`")
        return self
