"""TRL's dataset formats: recognise them, and split a row into prompt and reference answer or render it as text."""

import json
from collections.abc import Mapping

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.errors import InputError


Message = dict[str, str]


Row = Mapping[str, object]


FORMATS = ("prompt + completion", "messages", "text")
# TRL renders a row's conversation with these keyword arguments.
TEMPLATE_COLUMN = "chat_template_kwargs"


def format_of(columns: list[str], source: str = "the dataset") -> str:
    """Return which of `FORMATS` the columns have.

    Raises:
        InputError: none of them.
    """
    if {"prompt", "completion"} <= set(columns):
        return FORMATS[0]
    for column in ("messages", "text"):
        if column in columns:
            return column
    raise InputError(f"{source} has the columns {', '.join(columns)}; wanted: {' or '.join(FORMATS)}")


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


def is_conversational(rows: Dataset) -> bool:
    """Return whether the rows hold messages rather than text."""
    return "messages" in rows.column_names or not isinstance((rows[0].get("prompt") or rows[0].get("text")), str)


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


def row_text(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as the text a model is trained on; messages go through the chat template where there is one."""
    if row.get("text") is not None:
        return str(row["text"])
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return row["prompt"] + row["completion"]
    messages = list(row["messages"]) if row.get("messages") else [*row["prompt"], *row["completion"]]
    if tokenizer.chat_template is None:
        return "\n".join(str(message["content"]) for message in messages)
    return tokenizer.apply_chat_template(messages, tokenize=False)
