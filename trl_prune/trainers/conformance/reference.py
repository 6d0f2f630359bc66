"""The gradient that dense torch computes for a case, correctly or with one known error, and distances between gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from trl_prune.trainers.conformance.case import MASKED, Case, Step


@dataclass(frozen=True)
class KnownError:
    """A way to read a case wrongly, to name what a trainer did.

    Attributes:
        shift: how far a label's prediction lies before it.
        masks: whether masked labels are left out.
        temperature: whether the logits are divided by it.
        renormalises: whether the teacher's mass is that of the shared ids alone.
    """

    shift: int = 1
    masks: bool = True
    temperature: bool = True
    renormalises: bool = True


NO_ERROR = KnownError()


def reference(case: Case, reading: KnownError = NO_ERROR) -> Step:
    """Return the step that dense torch takes: the mean of KL(teacher || student) over all learned positions."""
    student, teacher = (AutoModelForCausalLM.from_pretrained(folder) for folder in (case.student, case.teacher))
    student, teacher = student.float(), teacher.float()
    values = torch.cat([_divergence(student, teacher, row, case, reading) for row in case.rows])
    loss = values.mean()
    names, weights = zip(*student.named_parameters(), strict=True)
    return Step(dict(zip(names, torch.autograd.grad(loss, weights), strict=True)), loss.item())


def _divergence(student: object, teacher: object, row: dict, case: Case, reading: KnownError) -> Tensor:
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
    wanted = (labels != MASKED) if reading.masks else torch.ones_like(labels, dtype=torch.bool)
    wanted = wanted[reading.shift :].nonzero()[:, 0]
    temperature = case.temperature if reading.temperature else 1.0
    ours = student(ids).logits[0, wanted].double() / temperature
    with torch.no_grad():
        theirs = teacher(ids).logits[0, wanted].double() / temperature
    shared = min(ours.shape[-1], theirs.shape[-1])
    if reading.renormalises:
        theirs = theirs[:, :shared]
    log_q = theirs.log_softmax(-1)[:, :shared]
    return (log_q.exp() * (log_q - ours[:, :shared].log_softmax(-1))).sum(-1)


def flat_gradient(step: Step) -> Tensor:
    return torch.cat([step.gradient[name].flatten().double() for name in sorted(step.gradient)])


def relative_difference(one: Step, other: Step) -> float:
    """Return how far two gradients are relative_difference, as a share of the second's length."""
    return ((flat_gradient(one) - flat_gradient(other)).norm() / flat_gradient(other).norm()).item()


def scale_and_turn(one: Step, other: Step) -> tuple[float, float]:
    """Return the factor between two gradients' lengths, and how far their directions are relative_difference."""
    a, b = flat_gradient(one), flat_gradient(other)
    return (a.norm() / b.norm()).item(), (a / a.norm() - b / b.norm()).norm().item()
