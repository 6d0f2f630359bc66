"""A teacher that spoke before: what it said is read from a cache, and no teacher is in memory."""

import logging
from collections.abc import Callable, Mapping

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import fingerprint, weights_fingerprint
from trl_prune.data.teacher_cache import TeacherCache
from trl_prune.data.teacher_codecs import Codec, settings_of
from trl_prune.data.teacher_proof import verify
from trl_prune.data.teacher_rows import row_keys
from trl_prune.errors import InputError
from trl_prune.losses.distill_head import check_target
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import HeadTarget, SparseTarget, TeacherTarget
from trl_prune.trainers.kd_config import KDConfig
from trl_prune.trainers.layer_map import states_to_compare
from trl_prune.trainers.preparation import COLUMNS
from trl_prune.trainers.stream import Point


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

    def read(self, inputs: dict, points: tuple[Point, ...]) -> tuple[TeacherTarget, dict[Point, Tensor]]:  # noqa: ARG002
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


def cached_teacher(args: KDConfig, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> CachedTeacher:
    """Return the teacher of a cache that serves these arguments.

    Raises:
        InputError: it does not: another tokenizer or temperature, a larger vocabulary, or states that it lacks.
    """
    cache = TeacherCache.open(args.teacher_cache)
    cache.check(args.temperature, tokenizer)
    check_serves(cache.codec, args)
    config = student.config.get_text_config()
    check_states(args.hidden_loss, config.num_hidden_layers, cache.facts.num_hidden_layers)
    known = config.vocab_size
    if cache.tier != "hidden" and cache.facts.vocab_size > known:
        raise InputError(
            f"the teacher cache {cache.folder} has {cache.facts.vocab_size} ids and the student {known}; write it "
            f"with vocab_size={known}"
        )
    return CachedTeacher(cache)


def check_serves(codec: Codec, args: KDConfig) -> None:
    """Check that a cache can tell what these arguments compare.

    Raises:
        InputError: the divergence wants more than the tier has, another number of ids is asked for than it has, or
            the teacher is to be corrected, which a cache cannot be.
    """
    if args.teacher_correction is not None:
        raise InputError(
            f"teacher_correction is {args.teacher_correction!r}, and a teacher cache holds what the teacher said; "
            "correct the teacher, write a cache of it, or distil without one"
        )
    if args.top_k is not None and codec.tier != "hidden" and getattr(codec, "k", None) != args.top_k:
        raise InputError(f"top_k is {args.top_k}, and the teacher cache is of {settings_of(codec)}; leave top_k out")
    nothing = torch.empty(0, 1)
    sparse = {
        "sampled": SparseTarget(nothing.long(), nothing),
        "topk": SparseTarget(nothing.long(), nothing, nothing[:, 0], codec.temperature),
    }
    if codec.tier in sparse:
        check_target(sparse[codec.tier], args.objective)


def check_states(hidden_loss: str | list[str], student: int, teacher: int) -> None:
    """Check that no intermediate state is wanted; say so where `auto` would have wanted some.

    Args:
        hidden_loss: KDConfig's.
        student: its number of blocks.
        teacher: its number of blocks.

    Raises:
        InputError: some are named.
    """
    if hidden_loss not in ("auto", "none"):
        raise InputError(
            f"hidden_loss is {hidden_loss}, and a teacher cache holds no intermediate states; set hidden_loss='none', "
            "or distil without `teacher_cache`"
        )
    if states_to_compare(hidden_loss, student, teacher):
        logger.warning(
            "%d of %d blocks are gone, where hidden_loss='auto' compares intermediate states too; a teacher cache "
            "holds none, so logits alone are compared",
            teacher - student,
            teacher,
        )


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
