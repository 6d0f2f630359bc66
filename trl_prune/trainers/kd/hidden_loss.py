"""The loss between intermediate states of student and teacher (arXiv 2407.14679, appendix A.6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.losses.hidden_states import HIDDEN_LOSSES, attention_relation
from trl_prune.trainers.intermediate_states import INSIDE_BLOCKS, PROJECTIONS, CapturedStates, comparison_norm
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import StatePairs, state_pairs
from trl_prune.trainers.kd.projection import PROJECTION, attach_projection


# Takes the student's states and the mask of learned positions, and returns the loss summed over these.
BatchHiddenLoss = Callable[[CapturedStates, Tensor], Tensor]


@dataclass(frozen=True)
class HiddenLoss:
    """Which states are compared, and how.

    Attributes:
        pairs: the points whose states are compared; empty without a hidden loss.
        distance: a key of `HIDDEN_LOSSES`.
        relation_heads: number of relation heads for attention states.
        student: the model with the projection.
        comparison_norms: for each pair the teacher's norm, which is applied to both states; None for states that are
            normalised already.
    """

    pairs: StatePairs = field(default_factory=StatePairs)
    distance: str = "cosine"
    relation_heads: int = 1
    student: PreTrainedModel | None = None
    comparison_norms: tuple[nn.Module | None, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether any state is compared."""
        return bool(self.pairs.student)

    def for_batch(self, teacher_states: CapturedStates, inputs: dict) -> BatchHiddenLoss:
        """Return the loss of a batch as a function of the student's states and of the mask of learned positions.

        Args:
            teacher_states: the teacher's states.
            inputs: the batch, for which positions may attend to which.
        """

        def sum_over_pairs(student_states: CapturedStates, learned: Tensor) -> Tensor:
            total = learned.new_zeros((), dtype=torch.float32)
            points = zip(self.pairs.student, self.pairs.teacher, self.comparison_norms, strict=True)
            for student_point, teacher_point, norm in points:
                student, teacher = student_states[student_point], teacher_states[teacher_point]
                if student_point.state == "attention":
                    loss = self._attention_loss(student, teacher, learned, inputs)
                else:
                    loss = self._state_loss(student, teacher, learned, norm)
                total = total + loss.to(total.device)
            return total

        return sum_over_pairs

    def _state_loss(self, student: Tensor, teacher: Tensor, learned: Tensor, norm: nn.Module | None) -> Tensor:
        student = student[:, :-1][learned.to(student.device)]
        teacher = teacher[:, :-1][learned[:, -teacher.shape[1] + 1 :].to(teacher.device)].to(student.device)
        if student.shape[-1] != teacher.shape[-1]:
            projection = getattr(self.student, PROJECTION)
            student = projection(student.to(projection.weight.device, projection.weight.dtype))
        if norm is not None:
            # The same norm for both: after removed blocks the student's next norm is another than the teacher's, and
            # equal states would seem different.
            norm = norm.to(student.device)
            student, teacher = norm(student.float()), norm(teacher.to(student.device).float())
        return HIDDEN_LOSSES[self.distance](student, teacher).sum()

    def _attention_loss(
        self, student: dict[str, Tensor], teacher: dict[str, Tensor], learned: Tensor, inputs: dict
    ) -> Tensor:
        allowed = attended_positions(inputs)
        losses = [
            attention_relation(student[name], teacher[name].to(allowed.device), allowed, self.relation_heads)
            for name in PROJECTIONS
        ]
        return (sum(losses)[:, :-1][learned] / len(losses)).sum()


def make_hidden_loss(
    student: PreTrainedModel, teacher: PreTrainedModel, args: KDConfig, provenance: Provenance | None
) -> HiddenLoss:
    """Return the hidden loss of these arguments, and attach the projection to the student where it needs one.

    Raises:
        InputError: a layer map out of range, a model without such states, or checkpointing that loses their gradient.
    """
    pairs = state_pairs(args.hidden_loss, args.layer_map, student.config, teacher.config, provenance)
    if not pairs.student:
        return HiddenLoss()
    check_checkpointing(pairs, args.gradient_checkpointing and _is_reentrant(args))
    if any(point.state != "attention" for point in pairs.student):
        attach_projection(student, teacher.config.get_text_config().hidden_size, provenance, args.seed)
    comparison_norms = tuple(comparison_norm(teacher, point) for point in pairs.teacher)
    return HiddenLoss(pairs, args.hidden_distance, _relation_heads(student, teacher), student, comparison_norms)


def _is_reentrant(args: KDConfig) -> bool:
    return bool((args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False))


def _relation_heads(student: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """Return the largest number of heads that divides queries, keys and values of both models."""
    configs = [model.config.get_text_config() for model in (student, teacher)]
    heads = [config.to_dict().get("num_key_value_heads") or config.num_attention_heads for config in configs]
    return math.gcd(*heads)


def attended_positions(inputs: dict) -> Tensor:
    """Return which positions (last) each position attends to, itself included, `(batch, tokens, tokens)` bool.

    Tokens attend to earlier ones of their sequence: in a padded batch those without padding, in a flattened one those
    since the last restart of `position_ids`.
    """
    ids = inputs["input_ids"]
    if "attention_mask" in inputs:
        sequence_ids = inputs["attention_mask"].long()
    else:
        sequence_ids = (inputs["position_ids"] == 0).cumsum(1)
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    return causal & (sequence_ids[:, :, None] == sequence_ids[:, None])


def check_checkpointing(pairs: StatePairs, reentrant: bool) -> None:
    """Check that gradient checkpointing keeps the gradient of the compared states.

    Raises:
        InputError: states inside a block are compared, and checkpointing is re-entrant.
    """
    inside = [point.state for point in pairs.student if point.state in INSIDE_BLOCKS]
    if inside and reentrant:
        raise InputError(
            f"hidden_loss names {inside[0]!r}, whose gradient re-entrant gradient checkpointing loses; set "
            "gradient_checkpointing_kwargs={'use_reentrant': False}"
        )
