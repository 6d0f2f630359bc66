"""How far a pruned model diverges from the dense one at each row's answer (PASER, arXiv 2502.12594, section 3.3).

Both models read a row with its answer (teacher forcing). A row's divergence is the Jensen-Shannon divergence between
their predictions of the answer's tokens, averaged over the tokens. Either both models are in memory, and blocks
that they share run once; or one after the other, with the dense model's final states on disk in between.
"""

import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trl_prune.data.selection.model_pair import ModelPair, Predictions, PrunedAlone, ResidentPair, StoredPair
from trl_prune.data.selection.row_array import RowArray, missing_of_share, share_of_chunks
from trl_prune.data.selection.row_batches import (
    AnswerRows,
    RowBatch,
    measure_chunks,
)
from trl_prune.data.shared_blocks import BlocksOf
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import Hidden
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.sequences import PreparedRow
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.losses.jensen_shannon import HeadComparison, compare_heads
from trl_prune.losses.positions import MASKED
from trl_prune.losses.targets import HeadTarget


FORMAT = 1
SCORES, ANSWERS_ALONE, DENSE_STATES = "scores.npy", "answers_alone.npy", "dense-states"
# Rows named in an error.
NAMED_ROWS = 5


@dataclass(frozen=True)
class ScoreSpec:
    """What to score.

    Attributes:
        rows: prepared rows: `input_ids` and `labels` as TRL prepares them, one sequence per row (not packed).
        dense: the dense model, loaded only if a score is missing.
        pruned: the pruned model, likewise, with the same vocabulary; its tokenizer is used for `answer_alone` only.
        temperature: divides both models' logits in the divergence.
        batch_tokens: tokens per batch, padding included; affects speed and memory, not scores.
        resident: whether both models are in memory at once. If not, the dense model's states are stored first, in
            bfloat16: 2 `hidden_size` bytes per answer token, until the scores are complete.
        blocks_of: returns a model's decoder blocks; where given, leading blocks that both models share run once.
    """

    rows: Sequence[PreparedRow]
    dense: LazyTeacher
    pruned: LazyTeacher
    temperature: float = 1.0
    batch_tokens: int = 4096
    resident: bool = True
    blocks_of: BlocksOf | None = None

    def __post_init__(self):
        if self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}; it must be above 0")
        if self.batch_tokens < 1:
            raise InputError(f"batch_tokens is {self.batch_tokens}; it must be 1 or more")


@dataclass(frozen=True)
class RowScores:
    """Scores of each row, all `(rows,)`; NaN where a row has no answer.

    Attributes:
        divergence: mean Jensen-Shannon divergence per answer token, in nats, at most ln 2.
        cross_entropy: the pruned model's mean negative log-likelihood per answer token, in nats, at temperature 1.
        answer_tokens: number of answer tokens, int64.
    """

    divergence: np.ndarray
    cross_entropy: np.ndarray
    answer_tokens: np.ndarray


def score_rows(folder: Path, spec: ScoreSpec, share: ProcessShare = SINGLE_PROCESS) -> RowScores:
    """Score rows, or those whose scores are missing in a folder, and return all scores in the dataset's order.

    Args:
        folder: where scores are kept; those of other rows, models or temperature are redone.
        spec: rows and models.
        share: the rows that this process scores; all processes must share one folder.

    Raises:
        InputError: a model's logits are not finite or not its head of its final states, or scores of another process
            are missing.
    """
    answers = AnswerRows.read(spec.rows)
    _write_scores(folder, spec, answers, share)
    share.wait_for_everyone()
    values = answers.in_dataset_order(_score_array(folder, spec, answers).read())
    for states in folder.glob(f"{DENSE_STATES}-*"):  # of an interrupted pass too, in which they were shared otherwise
        shutil.rmtree(states, ignore_errors=True)
    return RowScores(values[:, 0], values[:, 1], answers.answer_tokens)


def write_scores(folder: Path, spec: ScoreSpec, share: ProcessShare) -> None:
    """Score one process's share of the rows; `score_rows` then reads the scores of all.

    Raises:
        InputError: as `score_rows`.
    """
    _write_scores(folder, spec, AnswerRows.read(spec.rows), share)


def answer_alone_cross_entropy(folder: Path, spec: ScoreSpec, share: ProcessShare = SINGLE_PROCESS) -> np.ndarray:
    """Return the pruned model's mean negative log-likelihood per token of each answer without its prompt.

    With the cross-entropy given the prompt it makes the instruction-following difficulty (arXiv 2308.12032): the ratio
    of the two perplexities.

    Args:
        folder: where the numbers are kept, as in `score_rows`.
        spec: rows and pruned model.
        share: the rows that this process scores.

    Returns:
        `(rows,)` float64, in nats. The answer follows the tokenizer's BOS token; where it has none, the answer's first
        token, which nothing predicts, is left out, and an answer of one token gives NaN.

    Raises:
        InputError: as `score_rows`.
    """
    answers = AnswerRows.read(_AnswersAlone(spec.rows, spec.pruned.tokenizer.bos_token_id))
    _write_answers_alone(folder, spec, answers, share)
    share.wait_for_everyone()
    return answers.in_dataset_order(_alone_array(folder, spec, answers).read())[:, 0]


def write_answers_alone(folder: Path, spec: ScoreSpec, share: ProcessShare) -> None:
    """Score one process's share of the answers; `answer_alone_cross_entropy` then reads all.

    Raises:
        InputError: as `score_rows`.
    """
    answers = AnswerRows.read(_AnswersAlone(spec.rows, spec.pruned.tokenizer.bos_token_id))
    _write_answers_alone(folder, spec, answers, share)


class _AnswersAlone(Sequence):
    """Prepared rows without their prompts."""

    def __init__(self, rows: Sequence[PreparedRow], bos_token_id: int | None):
        self._rows, self._bos = rows, [] if bos_token_id is None else [bos_token_id]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PreparedRow:
        row = self._rows[index]
        ids = [token for token, label in zip(row["input_ids"][1:], row["labels"][1:], strict=True) if label != MASKED]
        return {"input_ids": self._bos + ids, "labels": [MASKED] * len(self._bos) + ids}


class _LabelledRows(Sequence):
    """A dataset's rows under their own indices, with labels in some of them only."""

    def __init__(self, rows: Sequence[PreparedRow], labelled: np.ndarray):
        self._rows, self._is_labelled = rows, np.isin(np.arange(len(rows)), labelled)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PreparedRow:
        row = self._rows[index]
        ids, labels = row["input_ids"], row["labels"]
        return {"input_ids": ids, "labels": labels if self._is_labelled[index] else [MASKED] * len(ids)}


def _score_array(folder: Path, spec: ScoreSpec, answers: AnswerRows) -> RowArray:
    models = [spec.dense.fingerprint, spec.pruned.fingerprint]
    key = _key([models, spec.temperature, spec.resident, answers.digest])
    return answers.array(folder / SCORES, 2, key)


def _alone_array(folder: Path, spec: ScoreSpec, answers: AnswerRows) -> RowArray:
    return answers.array(folder / ANSWERS_ALONE, 1, _key([spec.pruned.fingerprint, answers.digest]))


def _key(settings: list) -> str:
    return hashlib.sha256(json.dumps([FORMAT, *settings]).encode()).hexdigest()[:16]


def _write_scores(folder: Path, spec: ScoreSpec, answers: AnswerRows, share: ProcessShare) -> None:
    array = _score_array(folder, spec, answers)
    if spec.resident:
        open_pair = partial(ResidentPair, spec.dense, spec.pruned, spec.blocks_of)
        _write_share(array, spec, answers, share, open_pair)
    else:
        # Each process has a cache of its own, so that none waits for another.
        states = folder / f"{DENSE_STATES}-{array.key}-{share.process_index}-of-{share.num_processes}"
        rows = _LabelledRows(spec.rows, answers.rows_of(array, share_of_chunks(array, share)))
        open_pair = partial(_open_stored, states, CacheSpec(rows, spec.dense, Hidden()), spec.pruned, share.progress)
        _write_share(array, spec, answers, share, open_pair)


def _write_answers_alone(folder: Path, spec: ScoreSpec, answers: AnswerRows, share: ProcessShare) -> None:
    array = _alone_array(folder, spec, answers)
    _write_share(array, spec, answers, share, partial(PrunedAlone, spec.pruned))


def _write_share(
    array: RowArray,
    spec: ScoreSpec,
    answers: AnswerRows,
    share: ProcessShare,
    open_pair: Callable[[RowBatch], ModelPair],
) -> None:
    """Write the missing chunks of one process's share; models are loaded only if one of them has an answer."""
    array.create()
    chunks = missing_of_share(array, share)
    probe = next(answers.batches(answers.rows_of(array, chunks), batch_tokens=1), None)
    measure = partial(_measure, open_pair(probe), spec.temperature) if probe is not None else None
    measure_chunks(array, share.progress(chunks), answers, measure, spec.batch_tokens)


def _measure(pair: ModelPair, temperature: float, batch: RowBatch) -> np.ndarray:
    """Return the columns of a batch's rows: divergence, unless one model is scored alone, and cross-entropy."""
    predictions = pair.predictions(batch)
    states, head = predictions.pruned.hidden, predictions.pruned.head
    comparison = compare_heads(states, head, batch.labels.to(states.device), predictions.dense, temperature)
    _check_finite(batch, comparison, predictions)
    columns = [-comparison.log_probs] if predictions.dense is None else [comparison.divergence, -comparison.log_probs]
    return np.stack([batch.row_means(column) for column in columns], 1)


@torch.inference_mode()
def _check_finite(batch: RowBatch, comparison: HeadComparison, predictions: Predictions) -> None:
    bad = ~(comparison.divergence.isfinite() & comparison.log_probs.isfinite())
    if not bad.any():
        return
    name = next((name for name, side in predictions.present().items() if not _is_finite(side, bad)), "pruned")
    rows = batch.rows_at(bad)
    listed = ", ".join(map(str, rows[:NAMED_ROWS])) + (", ..." if len(rows) > NAMED_ROWS else "")
    raise InputError(
        f"the {name} model's logits are not finite on rows {listed}; check its weights, or score in a dtype with a "
        "wider range"
    )


def _is_finite(side: HeadTarget, positions: Tensor) -> bool:
    """Return whether a model's logits are finite at the first of some positions."""
    first = positions.nonzero()[0]
    return bool(side.head.logits(side.hidden[first]).isfinite().all())


def _open_stored(
    folder: Path,
    cache_spec: CacheSpec,
    pruned: LazyTeacher,
    progress: Callable[[list], Iterable],
    probe: RowBatch,
) -> StoredPair:
    """Store the dense model's states, free it and load the pruned model."""
    try:
        cache = write_cache(folder, cache_spec, replace(SINGLE_PROCESS, progress=progress))
    except InputError as error:
        raise InputError(f"the dense model's states cannot be stored: {error}") from error
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return StoredPair(cache, pruned, cache_spec.rows, probe)
