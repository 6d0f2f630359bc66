"""A teacher that spoke before: what it said is read from a cache, and no teacher is in memory."""

import logging
from collections.abc import Callable, Mapping

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
from trl_prune.losses.targets import HeadTarget, TeacherTarget
from trl_prune.trainers.intermediate_states import StatePoint
from trl_prune.trainers.preparation import COLUMNS


KEYS = "teacher_keys"
logger = logging.getLogger(__name__)


class KeyedCollator:
    """A collator whose batches name their sequences, so that a cache can be asked about them."""

    def __init__(self, collator: Callable[[list[Mapping]], dict], packed: bool):
        """Wrap a collator.

        Args:
            collator: TRL's.
            packed: whether positions restart at each of a row's `seq_lengths`.
        """
        self._collator, self._packed = collator, packed

    def __call__(self, examples: list[Mapping]) -> dict:
        """Return the collator's batch and, under `teacher_keys`, the keys of its sequences."""
        batch = self._collator(examples)
        batch[KEYS] = torch.cat([keys_of(example, self._packed) for example in examples])
        return batch


def keys_of(example: Mapping, packed: bool) -> Tensor:
    """Return the keys of a prepared row's sequences, `(sequences, 2)`."""
    names = COLUMNS if packed else COLUMNS[:2]
    return row_keys({name: example[name] for name in names if name in example})


class CachedTeacher:
    """Says what the teacher was found to say about a batch's learned positions."""

    def __init__(self, cache: TeacherCache):
        self.cache = cache

    def read(self, inputs: dict, points: tuple[StatePoint, ...]) -> tuple[TeacherTarget, dict[StatePoint, Tensor]]:  # noqa: ARG002
        """Return the cache's words about a batch; the batch's keys are taken out of it.

        Raises:
            InputError: a sequence is not in the cache, or the batch learns other positions than the cache knows.
        """
        labels = inputs["labels"]
        target = self.cache.targets(inputs.pop(KEYS), labels.device)
        stored = len(target.hidden if isinstance(target, HeadTarget) else target.ids)
        learned = int(learned_positions(labels).sum())
        if stored != learned:
            raise InputError(
                f"the batch learns {learned} positions, and the teacher cache {self.cache.folder} has {stored} for "
                "its rows; a data collator changed labels after the cache was written"
            )
        return target, {}


def check_datasets(cache: TeacherCache, datasets: Mapping[str, object], packed: bool) -> None:
    """Check that the cache holds every row of prepared datasets, by name; streams are checked batch by batch.

    Raises:
        InputError: it does not.
    """
    for name, dataset in datasets.items():
        if isinstance(dataset, Dataset):
            rows = dataset.select_columns([name for name in COLUMNS if name in dataset.column_names])
            try:
                cache.check_rows(torch.cat([keys_of(row, packed) for row in rows]))
            except InputError as error:
                raise InputError(f"{name}: {error}") from error


def check_alignment(cache: TeacherCache, dataset: object, teacher: PreTrainedModel, folder: object) -> None:
    """Hold the cache against the teacher itself, where one was given too; of a stream no row can be held against it.

    Raises:
        InputError: another teacher, or another alignment, wrote the cache.
    """
    if not isinstance(dataset, Dataset):
        logger.warning("The training dataset is a stream, so no row of the teacher cache is computed again")
        return
    mark = weights_fingerprint(teacher) if folder is None else fingerprint(folder)
    cache.check(cache.codec.temperature or 1.0, teacher=mark)
    verify(cache, dataset, teacher)
