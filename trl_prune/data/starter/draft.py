"""The plain form of a starter row, before it is put into the chat format."""

from typing import NamedTuple


class Draft(NamedTuple):
    """Hold one instruction with its reference answer and how to check it.

    Attributes:
        prompt: what the user writes.
        completion: what a good assistant replies.
        answer_type: `number`, `phrase` or `open`.
        answer: the number or the phrase that a right reply contains, None for open rows.
    """

    prompt: str
    completion: str
    answer_type: str
    answer: str | None = None
