"""The student's forward: TRL's fused one, with a head that distils in place of its own.

Everything runs inside the model's own forward, so that DDP, FSDP and ZeRO-3 see the head's use of its weights.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from trl_prune.losses.distill_head import distill
from trl_prune.losses.head_block import HeadOutput, Objective
from trl_prune.losses.lm_head import lm_head
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import TeacherTarget, on_device
from trl_prune.trainers.intermediate_states import StatePoint, captured_states
from trl_prune.trainers.sharded import full_tensor
from trl_prune.trainers.trl_names import FusedCausalLMOutput, gathered_head


@dataclass(frozen=True)
class DistillationBatch:
    """What a student is asked about one batch.

    Attributes:
        target: what the teacher says about the learned positions, in their order; None for the cross-entropy alone.
        objective: what is minimised.
        points: where the student's own states are read.
        compare: makes the hidden loss's sum of the states read and of the mask of learned positions.
    """

    target: TeacherTarget | None
    objective: Objective
    points: tuple[StatePoint, ...] = ()
    compare: Callable[[dict[StatePoint, Tensor], Tensor], Tensor] | None = None


@dataclass
class DistilledOutput(FusedCausalLMOutput):
    """TRL's fused output, where `log_probs` carries no gradient, and the distillation's sums over positions beside it.

    Args:
        objective (`torch.Tensor`):
            The objective's sum, with gradient.
        divergence (`torch.Tensor`):
            The divergence of each learned position.
        kl (`torch.Tensor`):
            KL(teacher || student) of each learned position, told in evaluation.
        agrees (`torch.Tensor`):
            Whether student and teacher find the same token likeliest, told in evaluation.
        hidden (`torch.Tensor`, *optional*):
            The sum of the intermediate states' distances, with gradient.
    """

    objective: Tensor | None = None
    divergence: Tensor | None = None
    kl: Tensor | None = None
    agrees: Tensor | None = None
    hidden: Tensor | None = None


def patch_forward(model: PreTrainedModel) -> None:
    """Make `model(..., fused_lm_head=True, distillation=DistillationBatch(...))` return a `DistilledOutput`; other calls are TRL's.

    Args:
        model: a causal LM that has TRL's fused head already, outside any PEFT or distributed wrapper.
    """
    fused = model.forward

    @functools.wraps(fused)
    def forward(
        self: PreTrainedModel,
        *args: object,
        distillation: DistillationBatch | None = None,
        labels: Tensor | None = None,
        **kwargs: object,
    ) -> ModelOutput:
        if distillation is None:
            return fused(*args, **(kwargs if labels is None else kwargs | {"labels": labels}))
        return _taught(self, functools.partial(fused, *args, **kwargs), labels, distillation)

    model.forward = types.MethodType(forward, model)


def _taught(
    model: PreTrainedModel, fused: Callable[..., ModelOutput], labels: Tensor, distillation: DistillationBatch
) -> ModelOutput:
    learned = learned_positions(labels)
    module = model.get_output_embeddings()
    with (
        gathered_head(module.weight, module.bias),
        captured_states(model, distillation.points) as states,
        _rows(model.base_model, learned) as rows,
    ):
        # TRL's own head is handed no position: what is left of its forward are the backbone and the auxiliary loss.
        output = fused(shift_labels=labels[:1, :0])
        head, targets = lm_head(model).each(full_tensor), labels[:, 1:][learned]
        # With a `device_map` the backbone can end on another device than the head, and begin on a third.
        device = head.weight.device
        target = None if distillation.target is None else on_device(distillation.target, device)
        told = distill(rows[0].to(device), head, targets.to(device), target, distillation.objective)
    hidden = None if distillation.compare is None else distillation.compare(states, learned)
    return _output(told, learned, output, hidden)


@contextmanager
def _rows(backbone: nn.Module, learned: Tensor) -> Iterator[list[Tensor]]:
    """Keep the backbone's states at the learned positions, `(N, hidden_size)`, and hand none on."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: tuple, output: ModelOutput) -> None:
        states = output.last_hidden_state
        kept.append(states[:, :-1][learned.to(states.device)])
        output.last_hidden_state = output.last_hidden_state[:1, :0]

    handle = backbone.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _output(told: HeadOutput, learned: Tensor, output: ModelOutput, hidden: Tensor | None) -> DistilledOutput:
    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(learned.shape).masked_scatter_(learned.to(values.device), values)

    return DistilledOutput(
        loss=told.loss,
        log_probs=spread(told.log_probs),
        entropy=spread(told.entropy),
        is_top1=spread(told.is_top1),
        label_mask=learned.to(told.log_probs.device),
        aux_loss=output.aux_loss,
        objective=told.loss,
        divergence=told.divergence,
        kl=told.kl,
        agrees=told.agrees,
        hidden=hidden,
    )


def without_cross_entropy(output: DistilledOutput) -> DistilledOutput:
    """Return the output as TRL's loss shall see it: without a cross-entropy, for ours is in `objective`."""
    return replace(output, log_probs=torch.zeros_like(output.log_probs))
