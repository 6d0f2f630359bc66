"""The term that pulls intermediate states of a student to its teacher's (arXiv 2407.14679, appendix A.6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.losses.hidden_states import HIDDEN_LOSSES, attention_relation
from trl_prune.trainers.intermediate_states import INSIDE_BLOCKS, PROJECTIONS, StatePoint, comparison_norm
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import Pairs, pairs_to_compare


# The student's attribute that holds the projection while it trains.
PROJECTION = "kd_projection"


@dataclass(frozen=True)
class HiddenTerm:
    """What is compared, and how.

    Attributes:
        pairs: the points that are compared; none where there is no such term.
        distance: a key of `HIDDEN_LOSSES`.
        heads: relation heads, for attention.
        student: the model the projection is hung on.
        comparison_norms: for each pair the teacher's norm, which both states go through; None where they are normed already.
    """

    pairs: Pairs = field(default_factory=Pairs)
    distance: str = "cosine"
    heads: int = 1
    student: PreTrainedModel | None = None
    comparison_norms: tuple[nn.Module | None, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.pairs.student)

    def against(
        self, teacher: dict[StatePoint, Tensor], inputs: dict
    ) -> Callable[[dict[StatePoint, Tensor], Tensor], Tensor]:
        """Return what makes the term's sum over learned positions of the student's states.

        Args:
            teacher: the teacher's states, `(batch, tokens, width)`.
            inputs: the batch, for what may attend to what.
        """

        def compare(student: dict[StatePoint, Tensor], learned: Tensor) -> Tensor:
            total = learned.new_zeros((), dtype=torch.float32)
            for ours, theirs, norm in zip(self.pairs.student, self.pairs.teacher, self.comparison_norms, strict=True):
                if ours.state == "attention":
                    told = self._relations(student[ours], teacher[theirs], learned, inputs)
                else:
                    told = self._states(student[ours], teacher[theirs], learned, norm)
                total = total + told.to(total.device)
            return total

        return compare

    def _states(self, student: Tensor, teacher: Tensor, learned: Tensor, norm: nn.Module | None) -> Tensor:
        ours = student[:, :-1][learned.to(student.device)]
        theirs = teacher[:, :-1][learned[:, -teacher.shape[1] + 1 :].to(teacher.device)].to(ours.device)
        if ours.shape[-1] != theirs.shape[-1]:
            projection = getattr(self.student, PROJECTION)
            ours = projection(ours.to(projection.weight.device, projection.weight.dtype))
        if norm is not None:
            # One norm for both: next to a cut the student's own is another, and states that agree would seem apart.
            ours, theirs = (norm.to(ours.device)(states.to(ours.device).float()) for states in (ours, theirs))
        return HIDDEN_LOSSES[self.distance](ours, theirs).sum()

    def _relations(self, student: dict, teacher: dict, learned: Tensor, inputs: dict) -> Tensor:
        allowed = attended(inputs)
        kinds = [
            attention_relation(student[name], teacher[name].to(allowed.device), allowed, self.heads)
            for name in PROJECTIONS
        ]
        return (sum(kinds)[:, :-1][learned] / len(kinds)).sum()


def hidden_term(
    student: PreTrainedModel, teacher: PreTrainedModel, args: KDConfig, provenance: Provenance | None
) -> HiddenTerm:
    """Return the term that the arguments ask for, the projection hung on the student where it needs one.

    Raises:
        InputError: a map out of range, a model without such states, or checkpointing that hides them.
    """
    pairs = pairs_to_compare(args.hidden_loss, args.layer_map, student.config, teacher.config, provenance)
    if not pairs.student:
        return HiddenTerm()
    check_checkpointing(pairs, args.gradient_checkpointing and _is_reentrant(args))
    if any(point.state != "attention" for point in pairs.student):
        attach_projection(student, teacher.config.get_text_config().hidden_size, provenance, args.seed)
    comparison_norms = tuple(comparison_norm(teacher, point) for point in pairs.teacher)
    return HiddenTerm(pairs, args.hidden_distance, _common_heads(student, teacher), student, comparison_norms)


def _is_reentrant(args: KDConfig) -> bool:
    return bool((args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False))


def _common_heads(student: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """Return how many relation heads divide queries, keys and values of both models."""
    configs = [model.config.get_text_config() for model in (student, teacher)]
    heads = [config.to_dict().get("num_key_value_heads") or config.num_attention_heads for config in configs]
    return math.gcd(*heads)


def attended(inputs: dict) -> Tensor:
    """Return which positions (last) each position attends to, `(batch, tokens, tokens)`; each attends to itself."""
    ids = inputs["input_ids"]
    if "attention_mask" in inputs:
        document = inputs["attention_mask"].long()
    else:
        document = (inputs["position_ids"] == 0).cumsum(1)
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    return causal & (document[:, :, None] == document[:, None])


def attach_projection(student: PreTrainedModel, teacher_width: int, provenance: Provenance | None, seed: int) -> None:
    """Hang the shared up-projection on a student that is narrower than its teacher.

    It trains with the student and is left out of everything `save_pretrained` writes. Where the student's channels are
    known ones of the teacher's, it starts by putting each back in its place; else at random.

    Args:
        student: the model, outside any wrapper.
        teacher_width: the teacher's hidden_size.
        provenance: the student's, for its channels.
        seed: of the random start.
    """
    width = student.config.get_text_config().hidden_size
    if width == teacher_width:
        return
    weight = _back_in_place(width, teacher_width, provenance)
    if weight is None:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(teacher_width, width, generator=generator) / math.sqrt(width)
    reference = student.get_input_embeddings().weight
    projection = nn.Linear(width, teacher_width, bias=False)
    # In float32 whatever a frozen student is in (QLoRA): it trains. Autocast lowers it with the rest.
    projection.weight.data = weight.to(reference.device, torch.float32)
    setattr(student, PROJECTION, projection)
    ignored = set(student._keys_to_ignore_on_save or ())
    student._keys_to_ignore_on_save = {*ignored, f"{PROJECTION}.weight"}


def _back_in_place(width: int, teacher_width: int, provenance: Provenance | None) -> Tensor | None:
    channels = [] if provenance is None else provenance.keep.get("hidden_size", [])
    if len(channels) != width or max(channels) >= teacher_width:
        return None
    return torch.eye(teacher_width)[:, channels]


def check_checkpointing(pairs: Pairs, reentrant: bool) -> None:
    """Refuse states that re-entrant checkpointing hides.

    Raises:
        InputError: states inside a block are wanted, and blocks are checkpointed re-entrantly.
    """
    inside = [point.state for point in pairs.student if point.state in INSIDE_BLOCKS]
    if inside and reentrant:
        raise InputError(
            f"hidden_loss names {inside[0]!r}, whose gradient re-entrant gradient checkpointing loses; set "
            "gradient_checkpointing_kwargs={'use_reentrant': False}"
        )
