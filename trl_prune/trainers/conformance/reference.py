"""The step that dense torch computes for a case, correctly or with one known error, and comparisons of gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from trl_prune.losses.positions import MASKED
from trl_prune.trainers.conformance.case import Case, Step


@dataclass(frozen=True)
class KnownError:
    """A wrong computation of a case's loss, compared with a trainer's gradient to name its error.

    The defaults are the correct computation.

    Attributes:
        shift: distance of a label from the position that predicts it.
        masks: whether masked labels are left out.
        temperature: whether the logits are divided by the temperature.
        renormalises: whether the teacher's distribution is normalised over the shared ids alone.
    """

    shift: int = 1
    masks: bool = True
    temperature: bool = True
    renormalises: bool = True


NO_ERROR = KnownError()


def reference_step(case: Case, error: KnownError = NO_ERROR) -> Step:
    """Return the step of dense torch: the mean of KL(teacher || student) over all learned positions."""
    student, teacher = (
        AutoModelForCausalLM.from_pretrained(folder).float() for folder in (case.student, case.teacher)
    )
    divergences = torch.cat([_divergences(student, teacher, row, case.temperature, error) for row in case.rows])
    loss = divergences.mean()
    names, weights = zip(*student.named_parameters(), strict=True)
    return Step(dict(zip(names, torch.autograd.grad(loss, weights), strict=True)), loss.item())


def _divergences(
    student: PreTrainedModel, teacher: PreTrainedModel, row: dict, temperature: float, error: KnownError
) -> Tensor:
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
    learned = (labels != MASKED) if error.masks else torch.ones_like(labels, dtype=torch.bool)
    positions = learned[error.shift :].nonzero()[:, 0]
    divisor = temperature if error.temperature else 1.0
    student_logits = student(ids).logits[0, positions].double() / divisor
    with torch.no_grad():
        teacher_logits = teacher(ids).logits[0, positions].double() / divisor
    shared = min(student_logits.shape[-1], teacher_logits.shape[-1])
    if error.renormalises:
        teacher_logits = teacher_logits[:, :shared]
    log_q = teacher_logits.log_softmax(-1)[:, :shared]
    return (log_q.exp() * (log_q - student_logits[:, :shared].log_softmax(-1))).sum(-1)


def flat_gradient(step: Step) -> Tensor:
    """Return all gradients of a step as one vector, in the order of their names."""
    return torch.cat([step.gradient[name].flatten().double() for name in sorted(step.gradient)])


def relative_difference(step: Step, reference: Step) -> float:
    """Return the norm of the difference of two gradients, divided by the reference's norm."""
    gradient, reference_gradient = flat_gradient(step), flat_gradient(reference)
    return ((gradient - reference_gradient).norm() / reference_gradient.norm()).item()


def norm_ratio(step: Step, reference: Step) -> float:
    """Return the norm of a gradient divided by the reference's."""
    return (flat_gradient(step).norm() / flat_gradient(reference).norm()).item()


def direction_difference(step: Step, reference: Step) -> float:
    """Return the norm of the difference of two gradients that are scaled to norm 1."""
    gradient, reference_gradient = flat_gradient(step), flat_gradient(reference)
    return (gradient / gradient.norm() - reference_gradient / reference_gradient.norm()).norm().item()
