"""A teacher in memory: its forward on each batch."""

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from transformers import PreTrainedModel

from trl_prune.data.shared_blocks import recorded_output
from trl_prune.errors import InputError
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import HeadTarget
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.intermediate_states import StatePoint, capture_states
from trl_prune.trainers.sharded import full_lm_head
from trl_prune.trainers.teachers.prediction import Prediction
from trl_prune.trainers.trl_names import prepare_deepspeed, prepare_fsdp


# Entries of a batch that are not passed to the teacher.
STUDENT_ONLY = (
    "labels",
    "shift_labels",
    "num_items_in_batch",
    "fused_lm_head",
    "use_cache",
    "output_router_logits",
)


class OnlineTeacher:
    """A frozen model that predicts each batch.

    Attributes:
        model: the model, where its user or accelerate placed it.
    """

    def __init__(self, model: PreTrainedModel, accelerator: Accelerator, shared_blocks: int = 0):
        self.model = model
        self._accelerator = accelerator
        self._shared_blocks = decoder_blocks(model)[:shared_blocks]
        _prepare(model, accelerator)

    @torch.no_grad()
    def predict(self, inputs: dict, points: tuple[StatePoint, ...]) -> Prediction:
        """Return the teacher's distributions at a batch's learned positions, and its intermediate states.

        Args:
            inputs: the batch, labels included.
            points: the points at which states are read.

        Raises:
            InputError: the batch has ids outside the teacher's vocabulary.
        """
        learned = learned_positions(inputs["labels"])
        model_inputs = teacher_inputs(self.model, inputs)
        with (
            self._accelerator.autocast(),
            capture_states(self.model, points) as states,
            recorded_output(self._shared_blocks) as outputs,
        ):
            final = self.model.base_model(**model_inputs, use_cache=False).last_hidden_state
        device = inputs["labels"].device
        with full_lm_head(self.model) as head:
            head = head.map(lambda tensor: tensor.detach().to(device))
        target = HeadTarget(final[:, :-1][learned.to(final.device)].to(device), head)
        return Prediction(target, states, outputs[0] if outputs else None)


def teacher_inputs(model: PreTrainedModel, inputs: dict) -> dict:
    """Return what a teacher's backbone takes of a batch.

    Raises:
        InputError: the batch has ids outside the teacher's vocabulary.
    """
    ids, vocab_size = inputs["input_ids"], model.config.get_text_config().vocab_size
    if ids.numel() and int(ids.max()) >= vocab_size:
        raise InputError(
            f"the batch has token id {int(ids.max())}, and the teacher's vocabulary ends at {vocab_size - 1}; the "
            "student's tokenizer has tokens that the teacher does not have"
        )
    return {name: value for name, value in inputs.items() if name not in STUDENT_ONLY}


def _prepare(model: PreTrainedModel, accelerator: Accelerator) -> nn.Module:
    """Shard a teacher as the student is sharded; on one device, or under DDP, it is left unsharded."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return prepare_deepspeed(model, accelerator)
    if accelerator.distributed_type == DistributedType.FSDP:
        return prepare_fsdp(model.base_model, accelerator)
    return model


def check_finite_logits(target: HeadTarget, inputs: dict) -> None:
    """Check that a teacher's logits are finite.

    Raises:
        InputError: they are not; the error names the batch's rows.
    """
    invalid = ~torch.isfinite(target.hidden.float()).all(1)
    invalid |= ~torch.isfinite(target.hidden.float() @ target.head.weight.float().sum(0))
    learned = learned_positions(inputs["labels"])
    rows = learned.nonzero()[:, 0][invalid.to(learned.device)].unique().tolist()
    if rows:
        first_ids = inputs["input_ids"][rows[0], :12].tolist()
        raise InputError(
            f"the teacher's logits are not finite on rows {', '.join(map(str, rows))} of the batch (row {rows[0]} "
            f"begins with ids {first_ids}); another dtype (`teacher_model_init_kwargs`) usually fixes that"
        )
