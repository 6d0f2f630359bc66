"""Prepared rows in batches of like length, measured chunk by chunk into a `RowArray`.

Rows are ordered by length, longest first, so that the first batch needs the most memory, and chunks are made in that
order: a chunk's batches have little padding, whatever the order of the dataset.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trl_prune.data.selection.row_array import RowArray
from trl_prune.data.teacher_cache.sequences import PreparedRow
from trl_prune.losses.positions import MASKED, learned_positions


# Rows per chunk: an interrupted process loses at most one chunk.
CHUNK_ROWS = 256


@dataclass(frozen=True)
class RowBatch:
    """Rows padded on the right, where causal attention does not see the padding.

    Attributes:
        rows: the rows' indices in the dataset.
        inputs: `input_ids` and `attention_mask`, each `(batch, tokens)`.
        learned: the positions whose next token is of the answer, `(batch, tokens - 1)` bool.
        labels: those next tokens, row after row, `(positions,)`.
    """

    rows: np.ndarray
    inputs: dict[str, Tensor]
    learned: Tensor
    labels: Tensor

    @property
    def answer_tokens(self) -> list[int]:
        """The number of answer tokens of each row."""
        return self.learned.sum(1).tolist()

    def answer_states(self, states: Tensor) -> Tensor:
        """Return those of states `(batch, tokens, hidden_size)` that predict answers, `(positions, hidden_size)`."""
        return states[:, :-1][self.learned.to(states.device)]

    def row_means(self, values: Tensor) -> np.ndarray:
        """Return the mean over each row of values `(positions,)`, `(batch,)` float64."""
        return np.array([float(part.mean()) for part in values.double().cpu().split(self.answer_tokens)])

    def rows_at(self, positions: Tensor) -> list[int]:
        """Return the dataset's indices, ascending, of the rows of some positions, given as a mask `(positions,)`."""
        row_of_position = np.repeat(self.rows, self.answer_tokens)
        return sorted(set(row_of_position[positions.cpu().numpy()].tolist()))


Measure = Callable[[RowBatch], np.ndarray]


@dataclass(frozen=True)
class AnswerRows:
    """Prepared rows and the lengths of their answers.

    Attributes:
        rows: `input_ids` and `labels` as TRL prepares them, one sequence per row (not packed).
        answer_tokens: tokens of each that have a label and a token before it, `(rows,)`.
        order: the rows' indices, longest first, and at the end those without an answer.
        digest: a hash of all tokens and labels.
        lengths: tokens of each row, 0 where it has no answer, `(rows,)`.
    """

    rows: Sequence[PreparedRow]
    answer_tokens: np.ndarray
    order: np.ndarray
    digest: str
    lengths: np.ndarray

    @classmethod
    def read(cls, rows: Sequence[PreparedRow]) -> "AnswerRows":
        """Read all rows once."""
        lengths, answer_tokens = np.zeros((2, len(rows)), dtype=np.int64)
        digest = hashlib.blake2b(digest_size=16)
        for index, row in enumerate(rows):
            ids, labels = (np.asarray(row[name], dtype="<i4") for name in ("input_ids", "labels"))
            answer_tokens[index] = (labels[1:] != MASKED).sum()
            lengths[index] = len(ids) if answer_tokens[index] else 0
            for part in (np.array([len(ids)], "<i4"), ids, labels):
                digest.update(part.tobytes())
        return cls(rows, answer_tokens, np.argsort(-lengths, kind="stable"), digest.hexdigest(), lengths)

    def batches(self, indices: np.ndarray, batch_tokens: int) -> Iterator[RowBatch]:
        """Yield batches of at most `batch_tokens` tokens, padding included, of rows given longest first.

        A longer row is a batch alone; rows without an answer are left out.
        """
        indices, start = self._with_answer(indices), 0
        while start < len(indices):
            count = max(1, batch_tokens // self.lengths[indices[start]])
            yield self._batch(indices[start : start + count])
            start += count

    def _batch(self, indices: np.ndarray) -> RowBatch:
        rows = [self.rows[int(index)] for index in indices]
        ids, labels, mask = (
            torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=padding)
            for parts, padding in (
                ([torch.tensor(row["input_ids"]) for row in rows], 0),
                ([torch.tensor(row["labels"]) for row in rows], MASKED),
                ([torch.ones(len(row["input_ids"]), dtype=torch.long) for row in rows], 0),
            )
        )
        learned = learned_positions(labels)
        return RowBatch(indices, {"input_ids": ids, "attention_mask": mask}, learned, labels[:, 1:][learned])

    def array(self, path: Path, columns: int, key: str) -> RowArray:
        """Return the array with one line per row, in this object's order."""
        return RowArray(path, (len(self.rows), columns), key, dtype="float64", chunk_rows=CHUNK_ROWS)

    def rows_of(self, array: RowArray, chunks: Iterable[int]) -> np.ndarray:
        """Return the rows of chunks that have an answer, in this object's order."""
        rows = [self.order[array.rows_of(chunk)] for chunk in chunks]
        return self._with_answer(np.concatenate([np.empty(0, dtype=np.int64), *rows]))

    def _with_answer(self, indices: np.ndarray) -> np.ndarray:
        return indices[self.answer_tokens[indices] > 0]

    def in_dataset_order(self, values: np.ndarray) -> np.ndarray:
        """Return lines in the dataset's order, given in this object's order."""
        lines = np.empty_like(values, subok=False)
        lines[self.order] = values
        return lines


def measure_chunks(
    array: RowArray, chunks: Iterable[int], answers: AnswerRows, measure: Measure | None, batch_tokens: int
) -> None:
    """Measure rows and write them, chunk by chunk; NaN where a row has no answer.

    Args:
        array: where to write.
        chunks: which chunks of it.
        answers: the rows.
        measure: returns a batch's lines of the array, `(batch, columns)`; None where no row has an answer.
        batch_tokens: tokens per batch, padding included.
    """
    for chunk in chunks:
        rows = array.rows_of(chunk)
        batches = answers.batches(answers.order[rows], batch_tokens)
        measured = [measure(batch) for batch in batches]
        values = np.full((rows.stop - rows.start, array.shape[1]), np.nan)
        if measured:
            lines = np.concatenate(measured)
            values[: len(lines)] = lines  # rows without an answer come last
        array.write(chunk, values)
