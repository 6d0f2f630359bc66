"""A few sequences read anew by the teacher, held against what a cache says of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.encoding import TOLERANCE, CacheSpec, TeacherEncoder
from trl_prune.data.teacher_cache.sequences import PreparedRow, places_of
from trl_prune.errors import InputError
from trl_prune.losses.targets import HeadTarget, TeacherTarget


# Positions of a sequence that are computed again to prove alignment.
VERIFIED_POSITIONS = 64


@torch.inference_mode()
def verify(cache: TeacherCache, rows: Sequence[PreparedRow], model: PreTrainedModel, count: int = 4) -> None:
    """Compute a few sequences anew and hold them against the cache.

    Args:
        cache: the cache.
        rows: prepared rows that it must hold.
        model: the teacher.
        count: sequences, spread over the rows.

    Raises:
        InputError: a sequence is missing, or the cache says something else than the teacher.
    """
    chosen = sorted({index * len(rows) // count for index in range(count)})
    teacher = LazyTeacher(lambda: model, None, "")
    encoder = TeacherEncoder(CacheSpec(rows, teacher, cache.codec, vocab_size=cache.facts.vocab_size))
    for row in chosen:
        for place in places_of([rows[row]])[:1]:
            told = cache.targets(torch.tensor([place.key]))
            (arrays,) = encoder.encode([replace(place, row=row)])
            off = distance(told, cache.codec.decode(arrays, cache.head), cache.facts.vocab_size)
            if not off <= TOLERANCE:
                raise InputError(
                    f"the teacher cache {cache.folder} does not say what this teacher says about row {row} (off by "
                    f"{off:.2f} where {TOLERANCE} is rounding): it is of another teacher or out of step; write it anew"
                )


def distance(one: TeacherTarget, other: TeacherTarget, vocabulary: int) -> float:
    """Return how far apart two targets are, 0 to 1: states relatively, distributions by the mass they do not share."""
    if isinstance(one, HeadTarget):
        return float((one.hidden - other.hidden).float().norm() / other.hidden.float().norm())
    dense = [
        torch.zeros(len(target.ids[:VERIFIED_POSITIONS]), vocabulary).scatter_add_(
            1, target.ids[:VERIFIED_POSITIONS], target.probs[:VERIFIED_POSITIONS]
        )
        for target in (one, other)
    ]
    return float((dense[0] - dense[1]).abs().sum() / (dense[0] + dense[1]).sum())
