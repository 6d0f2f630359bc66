"""The messages that ask the dense model to rewrite a row's answer."""

from dataclasses import dataclass

from trl_prune.data.formats import Message, Row, conversation
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of


@dataclass(frozen=True)
class Request:
    """One answer to rewrite.

    Attributes:
        turns: the messages for the dense model, reference answer included.
        prefill: how the answer begins.
    """

    turns: list[Message]
    prefill: str


def rewriting_request(row: Row) -> Request | None:
    """Return what the dense model is asked for a row, or None where the row has no answer to rewrite."""
    parts = conversation(row)
    if parts is None or not parts[1].strip():
        return None
    turns, reference = parts
    kind = ANSWER_TYPES[answer_type_of(row)]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    talk = [turn for turn in turns if turn["role"] != "system"]
    if not talk or talk[-1]["role"] != "user":
        return None
    asked = kind.user.format(instruction=talk[-1]["content"], reference=reference)
    system = {"role": "system", "content": "\n\n".join([kind.system, *systems])}
    return Request([system, *talk[:-1], {"role": "user", "content": asked}], kind.prefill)
