"""A teacher that is loaded only when it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LazyTeacher:
    """The dense model, loaded only if one of its answers or predictions is missing.

    Attributes:
        load: returns the model, in eval mode.
        tokenizer: its tokenizer.
        fingerprint: changes when the model does.
        max_model_len: the longest context in tokens; None for no limit.
        folder: its checkpoint; None for a model that is in memory only.
    """

    load: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    max_model_len: int | None = None
    folder: Path | None = None


def context_length(config: PreTrainedConfig) -> int | None:
    """Return the longest context of a model in tokens, or None if its config names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def within_context(length: int, config: PreTrainedConfig) -> int:
    """Return a length in tokens, cut to the longest context of a model: a table of positions ends there."""
    return min(length, context_length(config) or length)
