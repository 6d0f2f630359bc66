"""Recompute a few sequences with the teacher and compare them with the cache."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.encoding import TOLERANCE, CacheSpec, TeacherEncoder
from trl_prune.data.teacher_cache.sequences import PreparedRow, distinct_sequences
from trl_prune.errors import InputError
from trl_prune.losses.targets import HeadTarget, TeacherTarget


# Positions per sequence whose distributions are compared.
VERIFIED_POSITIONS = 64


@torch.inference_mode()
def verify(cache: TeacherCache, rows: Sequence[PreparedRow], model: PreTrainedModel, count: int = 4) -> None:
    """Recompute a few sequences and compare them with the cache.

    Args:
        cache: the cache.
        rows: prepared rows that it must contain.
        model: the teacher.
        count: number of rows, evenly spaced; the first sequence of each is compared.

    Raises:
        InputError: a sequence is missing, or the cache differs from the teacher's predictions.
    """
    row_indices = sorted({index * len(rows) // count for index in range(count)})
    teacher = LazyTeacher(lambda: model, None, "")
    encoder = TeacherEncoder(CacheSpec(rows, teacher, cache.codec, vocab_size=cache.metadata.vocab_size))
    for row_index in row_indices:
        for span in distinct_sequences([rows[row_index]])[:1]:
            cached = cache.targets(torch.tensor([span.key]))
            (arrays,) = encoder.encode_batch([replace(span, row=row_index)])
            recomputed = cache.codec.decode(arrays, cache.head)
            difference = target_difference(cached, recomputed, cache.metadata.vocab_size)
            if not difference <= TOLERANCE:  # also true of NaN
                raise InputError(
                    f"the teacher cache {cache.folder} differs from this teacher's predictions on row {row_index} (by "
                    f"{difference:.2f}; up to {TOLERANCE} is rounding): it is of another teacher, or its positions "
                    "are shifted; write it again"
                )


def target_difference(cached: TeacherTarget, recomputed: TeacherTarget, vocab_size: int) -> float:
    """Return the difference of two targets, 0 for equal ones.

    For states it is the relative error, for distributions the share of probability mass that they do not share.
    """
    if isinstance(cached, HeadTarget):
        return float((cached.hidden - recomputed.hidden).float().norm() / recomputed.hidden.float().norm())
    first, second = (
        torch.zeros(len(target.ids[:VERIFIED_POSITIONS]), vocab_size).scatter_add_(
            1, target.ids[:VERIFIED_POSITIONS], target.probs[:VERIFIED_POSITIONS]
        )
        for target in (cached, recomputed)
    )
    return float((first - second).abs().sum() / (first + second).sum())
