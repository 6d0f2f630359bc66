"""The messages that ask the dense model to rewrite a row's answer."""

from dataclasses import dataclass

from trl_prune.data.formats import Message, Row, prompt_and_answer
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of


@dataclass(frozen=True)
class RewritingRequest:
    """The request to rewrite one answer.

    Attributes:
        messages: the prompt for the dense model, which contains the reference answer.
        prefill: the start of the rewritten answer.
    """

    messages: list[Message]
    prefill: str


def rewriting_request(row: Row) -> RewritingRequest | None:
    """Return a row's rewriting request, or None if the row has no answer to rewrite."""
    split = prompt_and_answer(row)
    if split is None or not split[1].strip():
        return None
    messages, reference = split
    answer_type = ANSWER_TYPES[answer_type_of(row)]
    row_system = [message["content"] for message in messages if message["role"] == "system"]
    dialogue = [message for message in messages if message["role"] != "system"]
    if not dialogue or dialogue[-1]["role"] != "user":
        return None
    system = {"role": "system", "content": "\n\n".join([answer_type.system, *row_system])}
    user_prompt = answer_type.user.format(instruction=dialogue[-1]["content"], reference=reference)
    return RewritingRequest([system, *dialogue[:-1], {"role": "user", "content": user_prompt}], answer_type.prefill)
