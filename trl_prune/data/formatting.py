"""Dataset formats: load what TRL's trainers take, and turn a row into a prompt, a reference answer or plain text."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.errors import InputError, first_line


Message = dict[str, str]
Row = Mapping[str, object]
FILE_TYPES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
FORMATS = ("prompt + completion", "messages", "text")
# The smallest row that can teach: one token to see and one to predict.
MIN_TOKENS = 2


def read_dataset(path: str, name: str | None = None, split: str = "train", revision: str | None = None) -> Dataset:
    """Return a dataset from a local JSONL or parquet file, or from the hub.

    Raises:
        InputError: no such file, no such dataset, no network, an unreadable or empty file, or no usable columns.
    """
    local = Path(path).expanduser()
    if local.is_file():
        dataset = _read_file(local)
    elif local.suffix in FILE_TYPES or local.is_dir() or path.count("/") > 1:
        raise InputError(f"dataset {path!r} is not a file here; allowed: {', '.join(FILE_TYPES)} or a hub id")
    else:
        dataset = _from_hub(path, name, split, revision)
    if len(dataset) == 0:
        raise InputError(f"dataset {path!r} is empty")
    format_of(dataset.column_names, path)
    return dataset


def _read_file(path: Path) -> Dataset:
    if path.suffix not in FILE_TYPES:
        raise InputError(f"dataset {str(path)!r} has the suffix {path.suffix!r}; allowed: {', '.join(FILE_TYPES)}")
    if path.stat().st_size == 0:
        raise InputError(f"dataset {str(path)!r} is empty")
    try:
        if path.suffix == ".parquet":
            return Dataset.from_parquet(str(path), keep_in_memory=True)
        return from_rows(_json_rows(path))
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"dataset {str(path)!r} cannot be read: {first_line(error)}") from error


def from_rows(rows: list[dict]) -> Dataset:
    """Return a dataset with every key that any row has; `Dataset.from_list` knows the first row's only."""
    columns = {key: None for row in rows for key in row}
    return Dataset.from_list([columns | row for row in rows])


def _json_rows(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("wanted one JSON object a line")
    return rows


def _from_hub(path: str, name: str | None, split: str, revision: str | None) -> Dataset:
    try:
        return load_dataset(path, name, split=split, revision=revision)
    except (ConnectionError, OSError) as error:
        raise InputError(
            f"dataset {path!r} is no file here and cannot be had from the hub ({type(error).__name__}): "
            "check the name, or the network"
        ) from error
    except ValueError as error:
        raise InputError(f"dataset {path!r} (name {name!r}, split {split!r}): {first_line(error)}") from error


def dataset_commit(path: str, revision: str | None = None) -> str | None:
    """Return the commit a hub dataset has now, or None for a local one."""
    if Path(path).expanduser().exists() or path.count("/") != 1:
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(path, revision=revision).sha
    except OSError:  # the cached copy was read; which commit it has is not known without the hub
        return None


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


def calibration_batches(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int
) -> list[dict[str, torch.Tensor]]:
    """Return padded batches of the rows' texts, longest first so that memory is known at once.

    Returns:
        Dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`, padded on the right.

    Raises:
        InputError: no row has two tokens.
    """
    texts = [row_text(row, tokenizer) for row in rows]
    # A chat template writes the special tokens itself.
    templated = tokenizer.chat_template is not None and conversational(rows)
    encoded = tokenizer(texts, truncation=True, max_length=max_length, add_special_tokens=not templated)["input_ids"]
    usable = sorted((ids for ids in encoded if len(ids) >= MIN_TOKENS), key=len, reverse=True)
    if not usable:
        raise InputError("the calibration rows hold no text of two tokens or more")
    return [pad(usable[start : start + batch_size], tokenizer) for start in range(0, len(usable), batch_size)]


def pad(rows: list[list[int]], tokenizer: PreTrainedTokenizerBase, side: str = "right") -> dict[str, torch.Tensor]:
    """Return token rows as one padded batch; the padding id is never attended to, so any id will do."""
    filler = tokenizer.pad_token_id or 0
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        before, after = (gap, 0) if side == "left" else (0, gap)
        ids.append([filler] * before + row + [filler] * after)
        mask.append([0] * before + [1] * len(row) + [0] * after)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def sample(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` rows drawn without replacement, in the dataset's order; all of them where there are fewer."""
    if count >= len(dataset):
        return dataset
    return dataset.select(sorted(random.Random(seed).sample(range(len(dataset)), count)))


def held_out(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return `count` rows drawn without replacement, and the rest, both in the dataset's order."""
    drawn = set(random.Random(seed).sample(range(len(dataset)), count))
    rest = [index for index in range(len(dataset)) if index not in drawn]
    return dataset.select(sorted(drawn)), dataset.select(rest)
