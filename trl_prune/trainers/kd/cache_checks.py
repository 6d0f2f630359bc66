"""Open a teacher cache for a distillation, and check that it contains what the arguments compare."""

import logging

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Codec, codec_settings
from trl_prune.errors import InputError
from trl_prune.losses.distill_head import check_target
from trl_prune.losses.targets import SparseTarget
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import compared_states
from trl_prune.trainers.teachers.cached import CachedTeacher


logger = logging.getLogger(__name__)


def open_cached_teacher(args: KDConfig, student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> CachedTeacher:
    """Return the teacher of `args.teacher_cache`.

    Raises:
        InputError: the cache does not serve these arguments: it has another tokenizer or temperature, a larger
            vocabulary, or lacks what they compare.
    """
    cache = TeacherCache.open(args.teacher_cache)
    cache.check(args.temperature, tokenizer)
    check_codec(cache.codec, args)
    config = student.config.get_text_config()
    check_hidden_loss(args.hidden_loss, config.num_hidden_layers, cache.metadata.num_hidden_layers)
    if cache.tier != "hidden" and cache.metadata.vocab_size > config.vocab_size:
        raise InputError(
            f"the teacher cache {cache.folder} has {cache.metadata.vocab_size} ids and the student "
            f"{config.vocab_size}; write it with vocab_size={config.vocab_size}"
        )
    return CachedTeacher(cache)


def check_codec(codec: Codec, args: KDConfig) -> None:
    """Check that a cache of this codec contains what the arguments compare.

    Raises:
        InputError: the divergence needs more than the tier has, `top_k` differs from the cache's, or the teacher is to
            be corrected, which a cache cannot be.
    """
    if args.teacher_correction is not None:
        raise InputError(
            f"teacher_correction is {args.teacher_correction!r}, and a teacher cache holds predictions, which cannot "
            "be corrected; correct the teacher and write a cache of it, or distil without a cache"
        )
    if args.top_k is not None and codec.tier != "hidden" and getattr(codec, "k", None) != args.top_k:
        raise InputError(
            f"top_k is {args.top_k}, and the teacher cache is of {codec_settings(codec)}; leave top_k out"
        )
    empty = torch.empty(0, 1)
    targets = {
        "sampled": SparseTarget(empty.long(), empty),
        "topk": SparseTarget(empty.long(), empty, empty[:, 0], codec.temperature),
    }
    if codec.tier in targets:
        check_target(targets[codec.tier], args.objective)


def check_hidden_loss(hidden_loss: str | list[str], student_blocks: int, teacher_blocks: int) -> None:
    """Check that `hidden_loss` names no intermediate state; warn where `auto` would compare any.

    Raises:
        InputError: it names states.
    """
    if hidden_loss not in ("auto", "none"):
        raise InputError(
            f"hidden_loss is {hidden_loss}, and a teacher cache holds no intermediate states; set hidden_loss='none', "
            "or distil without `teacher_cache`"
        )
    if compared_states(hidden_loss, student_blocks, teacher_blocks):
        logger.warning(
            "%d of %d blocks are removed, where hidden_loss='auto' compares intermediate states too; a teacher cache "
            "holds none, so only logits are compared",
            teacher_blocks - student_blocks,
            teacher_blocks,
        )
