"""How answers are generated, and what is generated."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Generation settings.

    Attributes:
        max_new_tokens: the maximum length of an answer.
        batch_size: prompts per batch, and answers per stored file; it does not determine the answers.
        temperature: 0 for greedy decoding.
        seed: with the prompt, the seed of each answer at a temperature above 0.
    """

    max_new_tokens: int = 256
    batch_size: int = 32
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """A generated text.

    Attributes:
        text: without special tokens.
        finished: whether it ended by itself rather than at `max_new_tokens`.
    """

    text: str
    finished: bool
