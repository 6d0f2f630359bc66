"""Draw rows, tokenize them for calibration and pad them to batches."""

import random

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import conversational, row_text
from trl_prune.errors import InputError


# The smallest row that can teach: one token to see and one to predict.
MIN_TOKENS = 2


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
