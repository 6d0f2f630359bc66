"""Conversations as the text that a chat template makes of them."""

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import TEMPLATE_COLUMN, Message, Row, template_variables
from trl_prune.data.normal_rows import RowFault
from trl_prune.errors import InputError, first_line


# The columns that a row is rendered with, besides its conversation.
RENDERED_WITH = ("tools", TEMPLATE_COLUMN)
# Seconds of the processor's time after which the rendering of one conversation has hung.
TEMPLATE_SECONDS = 10


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    tools: list | None = None,
    variables: Mapping[str, object] | None = None,
    add_generation_prompt: bool = False,
) -> tuple[list[Message], str]:
    """Return messages as the chat template accepts them, and the text that it makes of them.

    A template that rejects the system role, such as Gemma's, gets the system prompt in the first user message.

    Raises:
        InputError: the chat template rejects the conversation.
    """
    options = {"tools": tools, "tokenize": False, "add_generation_prompt": add_generation_prompt}
    try:
        with _limited_time():
            return messages, tokenizer.apply_chat_template(messages, **options | dict(variables or {}))
    except Exception as error:  # a template's own, the sandbox's, and what Python's types do with unexpected values
        folded = fold_system_into_user(messages)
        if folded != messages:
            return rendered(tokenizer, folded, tools, variables, add_generation_prompt)
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(
            f"the tokenizer's chat template rejects a conversation of the roles {roles}: {first_line(error)}"
        ) from error


@contextmanager
def _limited_time() -> Iterator[None]:
    """Stop a chat template that does not end: transformers' sandbox limits what it may touch, not how long it takes.

    Only the main thread can be stopped, and not on Windows.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes more than {TEMPLATE_SECONDS} seconds")

    previous = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, TEMPLATE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


def accepted_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    tools: list | None = None,
    variables: Mapping[str, object] | None = None,
) -> list[Message]:
    """Return the messages as the chat template accepts them: as they are, or with the system prompt in the user's.

    Without a chat template they are as they are.

    Raises:
        InputError: it accepts neither.
    """
    if tokenizer.chat_template is None:
        return messages
    return rendered(tokenizer, messages, tools, variables, add_generation_prompt=True)[0]


def fold_system_into_user(messages: list[Message]) -> list[Message]:
    """Return the messages with the system prompt in the first user message, unchanged if either is absent."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    first = next((index for index, message in enumerate(rest) if message["role"] == "user"), None)
    if not system or first is None:
        return messages
    content = "\n\n".join([*system, rest[first]["content"]])
    return [*rest[:first], rest[first] | {"content": content}, *rest[first + 1 :]]


def row_text(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as the text a model is trained on; messages go through the chat template where there is one.

    Raises:
        InputError: the chat template rejects the conversation.
    """
    messages = row_conversation(row)
    if messages is None or tokenizer.chat_template is None:
        return plain_text(row)
    return rendered(tokenizer, messages)[1]


def plain_text(row: Row) -> str:
    """Return a row as text without a chat template: its messages, each on a line of its own, or its own text."""
    messages = row_conversation(row)
    if messages is not None:
        contents = (message.get("content") for message in messages)
        return "\n".join(content for content in contents if isinstance(content, str))
    return row["prompt"] + row["completion"] if row.get("prompt") is not None else row["text"]


def row_conversation(row: Row) -> list[Message] | None:
    """Return the messages of a normal row, None for a row of text."""
    if row.get("messages") is not None:
        return list(row["messages"])
    prompt = row.get("prompt")
    return None if prompt is None or isinstance(prompt, str) else [*prompt, *row["completion"]]


class TemplateAcceptance:
    """Makes of a normal row what the chat template accepts, with the system prompt in the user's message if need be.

    A template refuses roles and keys, not texts, so of all rows that have the same ones the first is rendered.

    Args:
        tokenizer: returns the tokenizer; called for the first row of messages.
        variables: those of the chat template.
    """

    def __init__(self, tokenizer: Callable[[], PreTrainedTokenizerBase], variables: Mapping[str, object]):
        self._tokenizer, self._variables = tokenizer, variables
        self._verdicts: dict[object, bool | str] = {}

    def __call__(self, row: dict) -> dict:
        """Return a row whose conversation the template accepts; without a template, the row.

        Raises:
            RowFault: it accepts none.
        """
        messages = row_conversation(row)
        if messages is None or self._tokenizer().chat_template is None:
            return row
        roles = tuple((message["role"], *message) for message in messages)
        key = (roles, str([row.get(name) for name in RENDERED_WITH]))
        if key not in self._verdicts:
            self._verdicts[key] = self._verdict(row, messages)
        verdict = self._verdicts[key]
        column = "messages" if row.get("messages") is not None else "prompt"
        if isinstance(verdict, str):
            roles = ", ".join(message["role"] for message in messages)
            wanted = f"one that the tokenizer's chat template accepts ({verdict})"
            raise RowFault(column, f"a conversation of the roles {roles}", wanted)
        return row | {column: fold_system_into_user(row[column])} if verdict else row

    def _verdict(self, row: Row, messages: list[Message]) -> bool | str:
        """Return whether the system prompt is to be folded, or why the template rejects the row either way."""
        variables, tools = _variables(row, self._variables), _tools(row)
        try:
            accepted, _ = rendered(self._tokenizer(), messages, tools, variables)
        except InputError as error:
            return first_line(error.__cause__)
        return accepted != messages


def _variables(row: Row, defaults: Mapping[str, object]) -> dict[str, object]:
    try:
        return template_variables(row, defaults)
    except InputError as error:
        raise RowFault(TEMPLATE_COLUMN, repr(row[TEMPLATE_COLUMN]), "an object, its JSON or null") from error


def _tools(row: Row) -> list | None:
    tools = row.get("tools")
    try:
        return (json.loads(tools) if isinstance(tools, str) else tools) or None
    except ValueError as error:
        raise RowFault("tools", repr(tools), "a list of tools, its JSON or null") from error
