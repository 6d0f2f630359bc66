"""A teacher that is loaded only when it is needed."""

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LazyTeacher:
    """The dense model, loaded only if one of its answers or predictions is missing.

    Attributes:
        load: returns the model, in eval mode.
        tokenizer: its tokenizer.
        fingerprint: changes when the model does.
    """

    load: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
