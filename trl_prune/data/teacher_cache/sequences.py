"""By what a teacher's words are found again: the tokens of a sequence and which of them are learned.

A cache's unit is the sequence, as TRL prepared it: tokenised, truncated, packed. A packed row is its sequences, so
that one cache serves packed and padded training alike, at any batch size and on any number of processes.
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
# Parts of a fast tokenizer's state that the last call left there and that decide no encoding of ours.
CALL_STATE = ("truncation", "padding")
PreparedRow = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class SequencePlace:
    """Where a sequence stands in the prepared rows.

    Attributes:
        key: two int64, a hash of its tokens and labels.
        row: index of its row.
        start: its first token in the row.
        tokens: its length.
        positions: how many of its tokens are learned.
    """

    key: tuple[int, int]
    row: int
    start: int
    tokens: int
    positions: int


def sequences_of(row: PreparedRow) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield start, input ids and labels of a prepared row's sequences, those that teach nothing left out.

    A sequence's first label counts as masked, for no token before it predicts it.
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
    """Return the hash that names a sequence: 128 bits as two int64."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(ids.astype("<i4").tobytes())
    digest.update(labels.astype("<i4").tobytes())
    first, second = np.frombuffer(digest.digest(), "<i8")
    return int(first), int(second)


def row_keys(row: PreparedRow) -> Tensor:
    """Return the keys of a prepared row's sequences, `(sequences, 2)` int64, in order.

    Args:
        row: `input_ids`, `labels` and, where the model is given restarted positions, `seq_lengths`.
    """
    keys = [sequence_key(ids, labels) for _, ids, labels in sequences_of(row)]
    return torch.tensor(keys, dtype=torch.int64).reshape(-1, 2)


def places_of(rows: Iterable[PreparedRow]) -> list[SequencePlace]:
    """Return the distinct sequences of prepared rows, each where it comes first."""
    found: dict[tuple[int, int], SequencePlace] = {}
    for number, row in enumerate(rows):
        for start, ids, labels in sequences_of(row):
            key = sequence_key(ids, labels)
            place = SequencePlace(key, number, start, len(ids), int((labels != MASKED).sum()))
            found.setdefault(key, place)
    return list(found.values())


def shifts_of(key: tuple[int, int], count: int, seed: int) -> Tensor:
    """Return a sequence's own random numbers in [0, 1), `(count,)` float64, whatever it is batched with."""
    words = np.array(key, dtype=np.int64).view(np.uint64)
    generator = np.random.Generator(np.random.Philox(key=words, counter=[0, 0, 0, seed]))
    return torch.from_numpy(generator.random(count))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of what decides how text becomes tokens; a chat template shows in the tokens themselves."""
    told = {"vocabulary": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        told["backend"] = {name: part for name, part in state.items() if name not in CALL_STATE}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
