"""A teacher read from a cache of its predictions; no teacher model is in memory."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import fingerprint, weights_fingerprint
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.sequences import row_keys
from trl_prune.data.teacher_cache.verification import verify
from trl_prune.errors import InputError
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.intermediate_states import StatePoint
from trl_prune.trainers.preparation import PREPARED_COLUMNS
from trl_prune.trainers.teachers.prediction import Prediction


# The entry of a batch with the cache keys of its sequences.
KEYS = "teacher_keys"
logger = logging.getLogger(__name__)


class KeyedCollator:
    """A collator that adds the cache keys of a batch's sequences."""

    def __init__(self, collator: Callable[[list[Mapping]], dict], packed: bool):
        """Wrap a collator.

        Args:
            collator: TRL's.
            packed: whether positions restart at each of a row's `seq_lengths`.
        """
        self._collator, self._packed = collator, packed

    def __call__(self, examples: list[Mapping]) -> dict:
        """Return the collator's batch, with the keys of its sequences as `teacher_keys`, `(sequences, 2)`."""
        batch = self._collator(examples)
        batch[KEYS] = torch.cat([sequence_keys(example, self._packed) for example in examples])
        return batch


def sequence_keys(example: Mapping, packed: bool) -> Tensor:
    """Return the keys of a prepared row's sequences, `(sequences, 2)`."""
    columns = PREPARED_COLUMNS if packed else PREPARED_COLUMNS[:2]
    return row_keys({name: example[name] for name in columns if name in example})


class CachedTeacher:
    """A cache of a teacher's predictions, read for each batch.

    Attributes:
        cache: the cache.
    """

    def __init__(self, cache: TeacherCache):
        self.cache = cache

    def predict(self, inputs: dict, points: tuple[StatePoint, ...]) -> Prediction:  # noqa: ARG002
        """Return the cached predictions at a batch's learned positions; the batch's keys are removed from it.

        Raises:
            InputError: a sequence is not in the cache, or the batch's learned positions differ from the cache's.
        """
        labels = inputs["labels"]
        target = self.cache.targets(inputs.pop(KEYS), labels.device)
        stored = len(target.hidden if isinstance(target, HeadTarget) else target.ids)
        learned = int(learned_positions(labels).sum())
        if stored != learned:
            raise InputError(
                f"the batch has {learned} learned positions, and the teacher cache {self.cache.folder} has {stored} "
                "for its rows; a data collator changed labels after the cache was written"
            )
        return Prediction(target)


def check_datasets(cache: TeacherCache, datasets: Mapping[str, object], packed: bool) -> None:
    """Check that the cache contains every row of prepared datasets, given by name; streams are checked at each batch.

    Raises:
        InputError: a row is missing.
    """
    for name, dataset in datasets.items():
        if isinstance(dataset, Dataset):
            rows = dataset.select_columns([column for column in PREPARED_COLUMNS if column in dataset.column_names])
            try:
                cache.check_contains(torch.cat([sequence_keys(row, packed) for row in rows]))
            except InputError as error:
                raise InputError(f"{name}: {error}") from error


def verify_cache(cache: TeacherCache, dataset: object, teacher: PreTrainedModel, folder: Path | None) -> None:
    """Compare the cache with the teacher itself on a few rows of the training dataset; a stream is not compared.

    Args:
        cache: the cache.
        dataset: the prepared training dataset.
        teacher: the teacher.
        folder: the teacher's checkpoint folder, None for a model given in memory.

    Raises:
        InputError: the cache is of another teacher, or of shifted positions.
    """
    if not isinstance(dataset, Dataset):
        logger.warning("The training dataset is a stream, so no row of the teacher cache is computed again")
        return
    teacher_fingerprint = weights_fingerprint(teacher) if folder is None else fingerprint(folder)
    cache.check(cache.codec.temperature or 1.0, teacher=teacher_fingerprint)
    verify(cache, dataset, teacher)
