"""Open a teacher cache for a distillation, and check that it holds what the arguments compare."""

import logging

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Codec, settings_of
from trl_prune.errors import InputError
from trl_prune.losses.distill_head import check_target
from trl_prune.losses.targets import SparseTarget
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import states_to_compare
from trl_prune.trainers.teachers.cached import CachedTeacher


logger = logging.getLogger(__name__)


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
