"""Prompts and what follows them, on which a draft is judged."""

from dataclasses import dataclass


# How a continuation was written.
GREEDY, SAMPLED, REFERENCE = "greedy", "sampled", "reference"


@dataclass(frozen=True)
class SpeculativePrompt:
    """A prompt to decode with a draft.

    Attributes:
        ids: its token ids.
        reference: token ids of a given answer, which no model wrote; None where there is none.
        capability: the skill that it asks for, by which acceptance is also reported; None where it names none.
    """

    ids: list[int]
    reference: list[int] | None = None
    capability: str | None = None


@dataclass(frozen=True)
class Text:
    """A prompt and one continuation.

    Attributes:
        prompt: token ids, at least one.
        continuation: token ids.
        capability: the prompt's.
    """

    prompt: list[int]
    continuation: list[int]
    capability: str | None = None
