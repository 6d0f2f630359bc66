"""TRL's dataset formats: recognise them, and turn a row into prompt, reference answer or plain text."""

from collections.abc import Mapping

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.errors import InputError


Message = dict[str, str]


Row = Mapping[str, object]


FORMATS = ("prompt + completion", "messages", "text")


def format_of(columns: list[str], source: str = "the dataset") -> str:
    """Return which of TRL's formats the columns are.

    Raises:
        InputError: none of them.
    """
    if {"prompt", "completion"} <= set(columns):
        return FORMATS[0]
    for column in ("messages", "text"):
        if column in columns:
            return column
    raise InputError(f"{source} has the columns {', '.join(columns)}; wanted: {' or '.join(FORMATS)}")


def conversation(row: Row) -> tuple[list[Message], str] | None:
    """Return a row as the turns before the answer and the answer's text, or None where it has no such shape.

    Plain `prompt` strings become one user turn. Rows whose last turn is no assistant's text (tool calls, images)
    have no answer to speak of.
    """
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _from_prompt_completion(row["prompt"], row["completion"])
    if row.get("messages"):
        messages = list(row["messages"])
        return _from_prompt_completion(messages[:-1], messages[-1:])
    return None


def _from_prompt_completion(prompt: object, completion: object) -> tuple[list[Message], str] | None:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if isinstance(completion, str):
        return (turns, completion) if _is_talk(turns) else None
    if len(completion) != 1 or completion[0].get("role") != "assistant" or not _is_talk([*turns, *completion]):
        return None
    return turns, completion[0]["content"]


def _is_talk(turns: list[Message]) -> bool:
    plain = all(isinstance(turn.get("content"), str) and not turn.get("tool_calls") for turn in turns)
    return bool(turns) and plain and turns[-1]["role"] in ("user", "assistant")


def conversational(rows: Dataset) -> bool:
    """Return whether rows are made of messages rather than text."""
    return "messages" in rows.column_names or not isinstance((rows[0].get("prompt") or rows[0].get("text")), str)


def with_answer(row: Row, answer: str) -> dict:
    """Return a row with another answer in the place of its own, in the same format."""
    new = dict(row)
    if row.get("completion") is not None:
        is_text = isinstance(row["completion"], str)
        new["completion"] = answer if is_text else [{"role": "assistant", "content": answer}]
    else:
        new["messages"] = [*row["messages"][:-1], {"role": "assistant", "content": answer}]
    return new


def row_text(row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as the text a model is trained on."""
    if row.get("text") is not None:
        return str(row["text"])
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return row["prompt"] + row["completion"]
    turns = list(row["messages"]) if row.get("messages") else [*row["prompt"], *row["completion"]]
    if tokenizer.chat_template is None:
        return "\n".join(str(turn["content"]) for turn in turns)
    return tokenizer.apply_chat_template(turns, tokenize=False)
