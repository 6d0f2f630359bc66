"""Sample rows, tokenize them for calibration and pad them to batches."""

import random
from collections.abc import Iterable

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import CAPABILITY, Row
from trl_prune.data.rendering import plain_text, row_conversation, row_text
from trl_prune.errors import InputError


# The shortest usable row: one token as input and one to predict.
MIN_TOKENS = 2


def calibration_batches(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, batch_size: int, max_length: int
) -> list[dict[str, torch.Tensor]]:
    """Return padded batches of the rows' texts, longest first, so that the first batch needs the most memory.

    Returns:
        Dicts with `input_ids` and `attention_mask`, each `(batch, tokens)`, padded on the right.

    Raises:
        InputError: no row has two tokens, or the chat template rejects a row.
    """
    encoded = _encoded(rows, tokenizer, max_length)
    usable = sorted((ids for ids in encoded if len(ids) >= MIN_TOKENS), key=len, reverse=True)
    if not usable:
        raise InputError("no row has a text of two tokens or more")
    return [pad(usable[start : start + batch_size], tokenizer) for start in range(0, len(usable), batch_size)]


def rows_in_one_text(rows: Dataset, count: int) -> Dataset:
    """Return texts of several rows, one after the other as in a prompt with examples, as rows of `text`.

    Args:
        rows: normal rows; where they name a `capability`, they are sorted by it, so that most texts have one. Those
            that are left over at the end are left out, unless there are no others.
        count: rows of a text; with one, the rows are returned as they are.
    """
    if count == 1:
        return rows
    if CAPABILITY in rows.column_names:
        names = [str(name) for name in rows[CAPABILITY]]
        rows = rows.select(sorted(range(len(rows)), key=names.__getitem__))
    texts = [plain_text(row).strip() for row in rows]
    starts = range(0, count * num_texts(len(texts), count), count)
    return Dataset.from_dict({"text": ["\n\n".join(texts[start : start + count]) for start in starts]})


def num_texts(rows: int, count: int) -> int:
    """Return how many texts of `count` rows so many rows make."""
    return max(rows // count, min(rows, 1))


def _encoded(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    """Return each row's token ids; where a chat template has written the special tokens, none are added."""
    encoded = []
    for index, row in enumerate(rows):
        try:
            text = row_text(row, tokenizer)
        except InputError as error:
            raise InputError(f"row {index} of the dataset: {error}") from error
        is_templated = tokenizer.chat_template is not None and row_conversation(row) is not None
        options = {"truncation": True, "max_length": max_length, "add_special_tokens": not is_templated}
        encoded.append(tokenizer(text, **options)["input_ids"])
    return encoded


def pad(rows: list[list[int]], tokenizer: PreTrainedTokenizerBase, side: str = "right") -> dict[str, torch.Tensor]:
    """Return token rows as one padded batch; padding is masked, so any id serves where the tokenizer has none."""
    pad_id = tokenizer.pad_token_id or 0
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        missing = width - len(row)
        left, right = (missing, 0) if side == "left" else (0, missing)
        ids.append([pad_id] * left + row + [pad_id] * right)
        mask.append([0] * left + [1] * len(row) + [0] * right)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def sample(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` rows sampled without replacement, in the dataset's order; all rows if there are fewer."""
    if count >= len(dataset):
        return dataset
    return dataset.select(sorted(random.Random(seed).sample(range(len(dataset)), count)))


def split_held_out(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return `count` rows sampled without replacement, and all other rows, both in the dataset's order."""
    sampled = set(random.Random(seed).sample(range(len(dataset)), count))
    rest = [index for index in range(len(dataset)) if index not in sampled]
    return dataset.select(sorted(sampled)), dataset.select(rest)
