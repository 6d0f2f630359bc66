"""A student's blocks below the first cut are its teacher's own: training can leave them as they are.

Their states are then equal, so that in distillation the teacher alone computes them, and no gradient passes them.
"""

import logging
from collections.abc import Iterable

from accelerate.utils import is_peft_model
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, Trainer

from trl_prune.data.shared_blocks import attention_implementation, count_shared_blocks
from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.intermediate_states import StatePoint, final_norm


logger = logging.getLogger(__name__)


def check_unsharded(trainer: Trainer, what: str = "freeze_shared_blocks") -> None:
    """Check that a trainer's ranks hold whole weights, which can be compared and left out of a forward pass.

    Args:
        trainer: the trainer.
        what: what needs them, for the error.

    Raises:
        InputError: FSDP or DeepSpeed shards them.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError(f"{what} works on one device or under DDP; FSDP and DeepSpeed shard the weights")


def freeze_shared_blocks(student: PreTrainedModel | PeftModel, teacher: PreTrainedModel) -> int:
    """Freeze a student's leading blocks that equal the teacher's, with the embeddings, and return their number.

    Adapters in these blocks are frozen as well. A tied LM head is the embedding, and frozen with it.

    Args:
        student: the student before training.
        teacher: the dense model, in the student's dtype, with its attention implementation and on its device.

    Raises:
        InputError: the models have no leading block in common, or no others.
    """
    model = student.get_base_model() if is_peft_model(student) else student
    count, blocks = count_shared_blocks(teacher, model, decoder_blocks), decoder_blocks(model)
    if not count:
        attention, teacher_attention = map(attention_implementation, (model, teacher))
        raise InputError(
            "freeze_shared_blocks is set, but the student's first block and embeddings are not the teacher's: the "
            f"first block was cut, weights were changed or trained, or the dtypes ({model.dtype}, {teacher.dtype}) or "
            f"attention implementations ({attention}, {teacher_attention}) differ"
        )
    if count == len(blocks):
        raise InputError(
            f"freeze_shared_blocks is set, and all {count} blocks of the student are the teacher's first: it was cut "
            "at the end, so no block above the cut is left to train"
        )
    freeze_all_but(model.base_model, [*blocks[count:], final_norm(model)])
    logger.info("%d of %d blocks are the teacher's own and stay frozen", count, len(blocks))
    return count


def is_above(point: StatePoint, shared_blocks: int) -> bool:
    """Return whether a student whose first blocks do not run has the state at a point."""
    return point.state == "embedding" or point.block + (point.state == "block") >= shared_blocks


def freeze_all_but(model: nn.Module, trained: Iterable[nn.Module | None]) -> None:
    """Freeze a module's weights and adapters outside some of its modules; what is frozen in these stays so."""
    kept = {id(weight) for module in trained if module is not None for weight in module.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(weight.requires_grad and id(weight) in kept)
