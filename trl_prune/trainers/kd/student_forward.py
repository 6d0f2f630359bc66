"""The student's forward during distillation: TRL's fused forward, with a distillation head in place of its LM head.

Everything runs inside the model's own forward, so that DDP, FSDP and ZeRO-3 see how the head's weights are used.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.data.shared_blocks import returning
from trl_prune.losses.distill_head import distill
from trl_prune.losses.head_block import HeadOutput, Objective
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import TeacherTarget, to_device
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.added_forward import add_forward
from trl_prune.trainers.intermediate_states import CapturedStates, StatePoint, capture_states
from trl_prune.trainers.sharded import full_lm_head
from trl_prune.trainers.trl_names import FusedCausalLMOutput


@dataclass(frozen=True)
class DistillationBatch:
    """The teacher's side of a batch, and what the student's forward computes from it.

    Attributes:
        target: the teacher's distributions at the learned positions, in their order; None for the cross-entropy alone.
        objective: the loss to minimise.
        points: the points at which the student's states are read.
        hidden_loss: the hidden loss, summed over learned positions, of the student's states and the mask of these
            positions.
        shared_blocks: the number of leading blocks that do not run because the teacher computed their states.
        shared_output: what the last of them returns.
    """

    target: TeacherTarget | None
    objective: Objective
    points: tuple[StatePoint, ...] = ()
    hidden_loss: Callable[[CapturedStates, Tensor], Tensor] | None = None
    shared_blocks: int = 0
    shared_output: object = None


@dataclass
class DistillationOutput(FusedCausalLMOutput):
    """TRL's fused output, with `log_probs` without gradient, and the distillation's losses and metrics.

    Args:
        objective (`torch.Tensor`):
            The objective, summed over learned positions, with gradient.
        divergence (`torch.Tensor`):
            The divergence at each learned position.
        kl (`torch.Tensor`):
            KL(teacher || student) at each learned position, computed in evaluation.
        agrees (`torch.Tensor`):
            Whether student and teacher have the same likeliest token, computed in evaluation.
        hidden_loss (`torch.Tensor`, *optional*):
            The hidden loss, summed over learned positions, with gradient.
    """

    objective: Tensor | None = None
    divergence: Tensor | None = None
    kl: Tensor | None = None
    agrees: Tensor | None = None
    hidden_loss: Tensor | None = None


def patch_forward(model: PreTrainedModel) -> None:
    """Make `model(..., fused_lm_head=True, distillation=DistillationBatch(...))` return a `DistillationOutput`.

    Other calls remain TRL's.

    Args:
        model: a causal LM with TRL's fused LM head, outside any PEFT or distributed wrapper.
    """
    add_forward(model, "distillation", _distillation_forward)


def _distillation_forward(
    model: PreTrainedModel, fused: functools.partial, labels: Tensor, batch: DistillationBatch
) -> DistillationOutput:
    learned = learned_positions(labels)
    with (
        full_lm_head(model) as head,
        returning(decoder_blocks(model)[: batch.shared_blocks], lambda: batch.shared_output),
        capture_states(model, batch.points) as states,
        _final_states(model.base_model, learned) as final_states,
    ):
        # TRL's own head gets no positions: of its forward, the backbone and the auxiliary loss remain.
        output = fused(shift_labels=labels[:1, :0])
        # With a `device_map` the backbone can start and end on other devices than the head's.
        device = head.weight.device
        target = None if batch.target is None else to_device(batch.target, device)
        next_ids = labels[:, 1:][learned].to(device)
        head_output = distill(final_states[0].to(device), head, next_ids, target, batch.objective)
    hidden_loss = None if batch.hidden_loss is None else batch.hidden_loss(states, learned)
    return _make_output(head_output, learned, output.aux_loss, hidden_loss)


@contextmanager
def _final_states(backbone: nn.Module, learned: Tensor) -> Iterator[list[Tensor]]:
    """Yield a list that gets the backbone's states at the learned positions, `(N, hidden_size)`.

    The backbone's output is replaced by an empty one.
    """
    captured: list[Tensor] = []

    def capture(_: nn.Module, __: tuple, output: ModelOutput) -> None:
        states = output.last_hidden_state
        captured.append(states[:, :-1][learned.to(states.device)])
        output.last_hidden_state = states[:1, :0]

    handle = backbone.register_forward_hook(capture)
    try:
        yield captured
    finally:
        handle.remove()


def _make_output(
    head_output: HeadOutput, learned: Tensor, aux_loss: Tensor | None, hidden_loss: Tensor | None
) -> DistillationOutput:
    def scatter(values: Tensor) -> Tensor:
        return values.new_zeros(learned.shape).masked_scatter_(learned.to(values.device), values)

    return DistillationOutput(
        loss=head_output.loss,
        log_probs=scatter(head_output.log_probs),
        entropy=scatter(head_output.entropy),
        is_top1=scatter(head_output.is_top1),
        label_mask=learned.to(head_output.log_probs.device),
        aux_loss=aux_loss,
        objective=head_output.loss,
        divergence=head_output.divergence,
        kl=head_output.kl,
        agrees=head_output.agrees,
        hidden_loss=hidden_loss,
    )
