"""Sequences, the unit of a teacher cache, and their keys: a hash of the tokens and of which of them are learned.

A sequence is as TRL prepared it: tokenized and truncated. A packed row contains several, so one cache serves packed
and padded training, at any batch size and number of processes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trl_prune.losses.positions import MASKED


KEY_BYTES = 16
# Entries of a fast tokenizer's state that the last call sets and that do not affect how rows are encoded here.
CALL_STATE = ("truncation", "padding")
PreparedRow = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class SequenceSpan:
    """A sequence's key and its span in the prepared rows.

    Attributes:
        key: the hash of its tokens and labels, two int64.
        row: index of its row.
        start: index of its first token in the row.
        num_tokens: its length.
        num_positions: number of its learned tokens.
    """

    key: tuple[int, int]
    row: int
    start: int
    num_tokens: int
    num_positions: int


def learned_sequences(row: PreparedRow) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield start, input ids and labels of a prepared row's sequences that have a learned token.

    A sequence's first label counts as masked, since no token before it predicts it.
    """
    ids = np.asarray(row["input_ids"], dtype=np.int32)
    labels = np.array(row["labels"], dtype=np.int32)
    start = 0
    for length in row.get("seq_lengths") or [len(ids)]:
        end = start + length
        labels[start : start + 1] = MASKED
        if (labels[start:end] != MASKED).any():
            yield start, ids[start:end], labels[start:end]
        start = end


def sequence_key(ids: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Return the hash that identifies a sequence: 128 bits as two int64."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(ids.astype("<i4").tobytes())
    digest.update(labels.astype("<i4").tobytes())
    first, second = np.frombuffer(digest.digest(), "<i8")
    return int(first), int(second)


def row_keys(row: PreparedRow) -> Tensor:
    """Return the keys of a prepared row's sequences, `(sequences, 2)` int64, in order.

    Args:
        row: `input_ids`, `labels` and, if the model's position ids restart at each sequence, `seq_lengths`.
    """
    keys = [sequence_key(ids, labels) for _, ids, labels in learned_sequences(row)]
    return torch.tensor(keys, dtype=torch.int64).reshape(-1, 2)


def distinct_sequences(rows: Iterable[PreparedRow]) -> list[SequenceSpan]:
    """Return the distinct sequences of prepared rows, each at its first occurrence."""
    spans: dict[tuple[int, int], SequenceSpan] = {}
    for row_index, row in enumerate(rows):
        for start, ids, labels in learned_sequences(row):
            key = sequence_key(ids, labels)
            span = SequenceSpan(key, row_index, start, len(ids), int((labels != MASKED).sum()))
            spans.setdefault(key, span)
    return list(spans.values())


def random_shifts(key: tuple[int, int], count: int, seed: int) -> Tensor:
    """Return uniform random numbers in [0, 1), `(count,)` float64, that depend on the sequence's key and seed only."""
    philox_key = np.array(key, dtype=np.int64).view(np.uint64)
    generator = np.random.Generator(np.random.Philox(key=philox_key, counter=[0, 0, 0, seed]))
    return torch.from_numpy(generator.random(count))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of what determines the encoding; the chat template is left out, as it shows in the tokens."""
    state = {"vocabulary": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        state["backend"] = {name: value for name, value in backend.items() if name not in CALL_STATE}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]
