"""TRL's dataset formats: recognise them, and split a row into prompt and reference answer."""

import json
from collections.abc import Collection, Mapping, Sequence

from datasets import Dataset, Value
from transformers import PreTrainedTokenizerBase

from trl_prune.errors import InputError


Message = dict[str, str]


Row = Mapping[str, object]


FORMATS = ("prompt + completion", "messages", "text")
# The columns of each; a row that has those of several is in the first.
FORMAT_COLUMNS = (("prompt", "completion"), ("messages",), ("text",))
# TRL renders a row's conversation with these keyword arguments.
TEMPLATE_COLUMN = "chat_template_kwargs"
# The column that says which of the tasks' capabilities a row trains.
CAPABILITY = "capability"


def formats_of(columns: Collection[str]) -> list[str]:
    """Return which of `FORMATS` some rows may have."""
    return [name for name, needed in zip(FORMATS, FORMAT_COLUMNS, strict=True) if set(needed) <= set(columns)]


def format_of(columns: Collection[str], source: str = "the dataset") -> str:
    """Return the first of `FORMATS` that the columns have.

    Raises:
        InputError: none of them.
    """
    found = formats_of(columns)
    if not found:
        raise InputError(f"{source} has the columns {', '.join(columns)}; wanted: {' or '.join(FORMATS)}")
    return found[0]


def prompt_and_answer(row: Row) -> tuple[list[Message], str] | None:
    """Return the messages before a row's answer and the answer's text, or None for any other row.

    A `prompt` string becomes one user message. A row whose last message is not an assistant's text (tool calls,
    images) has no answer.
    """
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _from_prompt_completion(row["prompt"], row["completion"])
    if row.get("messages"):
        messages = list(row["messages"])
        return _from_prompt_completion(messages[:-1], messages[-1:])
    return None


def _from_prompt_completion(prompt: object, completion: object) -> tuple[list[Message], str] | None:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if isinstance(completion, str):
        return (messages, completion) if _is_text_only(messages) else None
    if len(completion) != 1 or completion[0].get("role") != "assistant" or not _is_text_only([*messages, *completion]):
        return None
    return messages, completion[0]["content"]


def _is_text_only(messages: list[Message]) -> bool:
    text_only = all(isinstance(message.get("content"), str) and not message.get("tool_calls") for message in messages)
    return bool(messages) and text_only and messages[-1]["role"] in ("user", "assistant")


def answer_index(messages: Sequence[Message]) -> int | None:
    """Return which message of a conversation is its answer: the assistant's last that has a text or calls a tool."""
    return next((index for index in reversed(range(len(messages))) if _says_something(messages[index])), None)


def _says_something(message: Message) -> bool:
    return message["role"] == "assistant" and bool((message.get("content") or "").strip() or message.get("tool_calls"))


def is_conversational(rows: Dataset) -> bool:
    """Return whether any row holds messages rather than text."""
    if "messages" in rows.column_names:
        return True
    is_text = "prompt" not in rows.column_names or isinstance(rows.features["prompt"], Value)
    return not is_text and any(isinstance(prompt, list) for prompt in rows["prompt"])


def check_has_template(rows: Dataset, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Check that there is a chat template for rows of messages.

    Raises:
        InputError: there is none; `source` is what the sentence calls the rows.
    """
    if tokenizer.chat_template is None and is_conversational(rows):
        raise InputError(f"{source} has messages, and the model has no chat template for them")


def template_variables(row: Row, defaults: Mapping[str, object]) -> dict[str, object]:
    """Return the variables of the chat template for a row: the defaults, and over them those of its own column.

    A value of null in the column is none: a table of rows has every row's keys in each row.

    Raises:
        InputError: the column holds neither an object nor the JSON of one.
    """
    found = row.get(TEMPLATE_COLUMN)
    try:
        own = (json.loads(found) if found and isinstance(found, str) else found) or {}
    except ValueError:
        own = None
    if not isinstance(own, Mapping):
        raise InputError(f"{TEMPLATE_COLUMN} in the dataset is {found!r}; wanted: an object, its JSON or null")
    return dict(defaults) | {name: value for name, value in own.items() if value is not None}
