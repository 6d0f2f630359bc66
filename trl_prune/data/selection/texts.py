"""The texts of a row that selection works on: its instruction, and instruction and answer together."""

from datasets import Dataset

from trl_prune.data.formats import Row, answer_index, format_of
from trl_prune.errors import InputError


def check_instruction_column(dataset: Dataset, column: str | None, source: str) -> None:
    """Check that a dataset has rows, and instructions to cluster.

    Args:
        dataset: the rows.
        column: the column that the user named; None for one of TRL's formats.
        source: what the error calls the dataset.

    Raises:
        InputError: there are no rows or no such column, it does not hold text, or the dataset has none of TRL's
            formats.
    """
    if len(dataset) == 0:
        raise InputError(f"{source} has no rows to select from")
    format_of(dataset.column_names, source)
    if column is None:
        return
    if column not in dataset.column_names:
        raise InputError(
            f"select.instruction is {column!r}, and {source} has the columns {', '.join(dataset.column_names)}"
        )
    if not isinstance(dataset[0][column], str):
        raise InputError(
            f"select.instruction is {column!r}, a column of {source} that holds a "
            f"{type(dataset[0][column]).__name__}; wanted: text"
        )


def instruction_text(row: Row, column: str | None = None) -> str:
    """Return what a row asks: the users' messages of its prompt, or its text where it has no answer.

    The paper embeds instructions alone, because the answer's skill is what the instruction asks for (2502.12594,
    section 3.2). System messages are left out: they are often equal in all rows.

    Args:
        row: in one of TRL's formats.
        column: the column of the text instead.
    """
    if column is not None:
        return row[column] or ""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    messages = prompt or row.get("messages")
    if not messages:
        return str(row.get("text") or "")
    return "\n".join(str(message.get("content") or "") for message in messages if message["role"] == "user")


def answer_text(row: Row) -> str:
    """Return a row's answers as one text, empty for rows of plain text."""
    completion = row.get("completion")
    if isinstance(completion, str):
        return completion
    messages = completion or row.get("messages") or []
    return "\n".join(str(message.get("content") or "") for message in messages if message["role"] == "assistant")


def has_answer(row: Row) -> bool:
    """Return whether a row has something to learn: an answer, which may be a tool call, or plain text."""
    if row.get("messages") is not None:
        return answer_index(row["messages"]) is not None
    completion = row["completion"] if row.get("completion") is not None else row.get("text")
    if isinstance(completion, str):
        return bool(completion.strip())
    return answer_index(completion or []) is not None
