"""The assistant's answers inside a row: where they are, and how one is replaced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trl_prune.data.formats import Message, Row


ASSISTANT, USER = "assistant", "user"


@dataclass(frozen=True)
class Turn:
    """One answer of a row that can be rewritten.

    Attributes:
        index: its position among the row's messages, a prompt's before its completion's.
        messages: the messages before it.
        answer: its text.
        is_last: whether it is the row's last answer, which the row's `answer` column is about.
    """

    index: int
    messages: list[Message]
    answer: str
    is_last: bool

    @property
    def instruction(self) -> str:
        """The last message of the user's before it."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == USER)


def turns(row: Row, response_template: str | None = None) -> list[Turn]:
    """Return a row's answers in order: each text of the assistant's after a user's text, but for tool calls.

    Args:
        row: a row in one of TRL's formats.
        response_template: what stands between prompt and answer in rows of text, such as `### Response:`.
    """
    messages = row_messages(row, response_template)
    first = _first_answer(row)
    indices = [index for index in range(first, len(messages)) if _is_answer(messages, index)]
    return [
        Turn(index, messages[:index], messages[index]["content"], position == len(indices) - 1)
        for position, index in enumerate(indices)
    ]


def row_messages(row: Row, response_template: str | None = None) -> list[Message]:
    """Return a row as one conversation, empty for text without the response template."""
    if row.get("messages"):
        return list(row["messages"])
    if row.get("prompt") and row.get("completion"):
        return [*_as_messages(row["prompt"], USER), *_as_messages(row["completion"], ASSISTANT)]
    if row.get("text") and response_template:
        prompt, template, answer = str(row["text"]).rpartition(response_template)
        return [*_as_messages(prompt, USER), *_as_messages(answer, ASSISTANT)] if template else []
    return []


def _as_messages(value: object, role: str) -> list[Message]:
    return [{"role": role, "content": value}] if isinstance(value, str) else list(value)


def _first_answer(row: Row) -> int:
    """Return the index of the first message that may be rewritten: a prompt's own answers are its context."""
    if row.get("messages") or not row.get("prompt"):
        return 0
    return len(_as_messages(row["prompt"], USER))


def _is_answer(messages: Sequence[Message], index: int) -> bool:
    message, before = messages[index], messages[:index]
    is_text = isinstance(message.get("content"), str) and bool(message["content"].strip())
    questions = [earlier for earlier in before if earlier["role"] == USER]
    asked = bool(questions) and isinstance(questions[-1].get("content"), str)
    system_text = all(isinstance(earlier.get("content"), str) for earlier in before if earlier["role"] == "system")
    return message["role"] == ASSISTANT and is_text and asked and system_text and not message.get("tool_calls")


def with_answer(row: Row, index: int, answer: str, response_template: str | None = None) -> dict:
    """Return a copy of a row, in the same format, with one answer replaced and the space around it kept."""
    changed = dict(row)
    if row.get("messages"):
        changed["messages"] = _replaced(row["messages"], index, answer)
    elif row.get("completion"):
        if isinstance(row["completion"], str):
            changed["completion"] = in_place_of(row["completion"], answer)
        else:
            changed["completion"] = _replaced(row["completion"], index - _first_answer(row), answer)
    else:
        prompt, template, old = str(row["text"]).rpartition(response_template)
        changed["text"] = prompt + template + in_place_of(old, answer)
    return changed


def _replaced(messages: Sequence[Message], index: int, answer: str) -> list[Message]:
    return [*messages[:index], dict(messages[index]) | {"content": answer}, *messages[index + 1 :]]


def in_place_of(old: str, answer: str) -> str:
    """Return a stripped answer between the whitespace at the start and the end of the old one."""
    start, end = len(old) - len(old.lstrip()), len(old.rstrip())
    return old[:start] + answer.strip() + old[end:]


def with_prompt(row: Row, change: Callable[[list[Message]], list[Message]]) -> dict:
    """Return a copy of a row, in the same format, with the messages before its last answer changed.

    A prompt that is one text stays one: the messages' texts, joined by blank lines.
    """
    changed = dict(row)
    if row.get("messages"):
        end = turns(row)[-1].index
        changed["messages"] = [*change(list(row["messages"][:end])), *row["messages"][end:]]
    elif "prompt" not in row:
        return changed  # plain text has one prompt for everything
    elif isinstance(row["prompt"], str):
        changed["prompt"] = "\n\n".join(message["content"] for message in change(_as_messages(row["prompt"], USER)))
    else:
        changed["prompt"] = change(list(row["prompt"]))
    return changed
