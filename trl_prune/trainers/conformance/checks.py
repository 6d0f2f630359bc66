"""Checks of a distillation trainer's gradient on one process.

A trainer is built by the user's function from a `Case` and takes one step of plain gradient descent with learning rate
1, so that the decrease of its weights is its gradient. Each check compares it with dense torch, or with the same rows
in other batches, and names the error in one sentence. See docs/kd_conformance.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from trl_prune.trainers.conformance.case import PADDED_VOCAB_SIZE, ROWS, Builder, Step, take_step, write_case
from trl_prune.trainers.conformance.reference import (
    KnownError,
    direction_difference,
    flat_gradient,
    norm_ratio,
    reference_step,
    relative_difference,
)


TEMPERATURE = 2.0
# Largest relative difference of two float32 gradients of the same loss.
TOLERANCE = 1e-3


class ConformanceError(AssertionError):
    """A trainer fails a check; the message names its error in one sentence."""


Check = Callable[[Builder, Path], None]


def _same_direction(step: Step, reference: Step) -> bool:
    return direction_difference(step, reference) < TOLERANCE


def check_gradient(build: Builder, folder: Path) -> None:
    """Check that the divergence has a gradient, and that it is finite."""
    gradient = flat_gradient(take_step(build, write_case(folder)))
    if not torch.isfinite(gradient).all():
        raise ConformanceError("the gradient is not finite")
    if not gradient.norm() > 1e-6:
        raise ConformanceError("the gradient is zero: the divergence is computed outside of autograd")


def check_shift(build: Builder, folder: Path) -> None:
    """Check that a label is predicted from the token before it."""
    case = write_case(folder)
    step = take_step(build, case)
    unshifted = reference_step(case, KnownError(shift=0))
    if not _same_direction(step, reference_step(case)) and _same_direction(step, unshifted):
        raise ConformanceError(
            "labels are not shifted: the divergence is taken at each label, not one token before it"
        )


def check_mask(build: Builder, folder: Path) -> None:
    """Check that positions with a masked label, padding included, have no loss, and all others the same weight."""
    case = write_case(folder)
    step, reference = take_step(build, case), reference_step(case)
    if _same_direction(step, reference_step(case, KnownError(masks=False))):
        raise ConformanceError("masked labels are learned: the divergence is taken at every position")
    if relative_difference(step, reference) > TOLERANCE:
        raise ConformanceError(
            "the gradient is not that of the mean divergence over learned positions: "
            f"{norm_ratio(step, reference):.4f} times as long, and its direction differs by "
            f"{direction_difference(step, reference):.4f}"
        )


def check_accumulation(build: Builder, folder: Path) -> None:
    """Check that one batch of four rows, two of two and four of one make the same step and log the same loss."""
    case = write_case(folder)
    one_batch = take_step(build, case)
    for batch_size, accumulation_steps in ((2, 2), (1, 4)):
        step = take_step(build, case.with_batches(batch_size, accumulation_steps))
        batches = f"{accumulation_steps} batches of {batch_size} rows"
        if relative_difference(step, one_batch) > TOLERANCE:
            raise ConformanceError(
                f"the gradient of {batches} differs from that of one batch of {len(ROWS)}: "
                f"{norm_ratio(step, one_batch):.4f} times as long; divide the loss by num_items_in_batch"
            )
        if abs(step.loss - one_batch.loss) > TOLERANCE * abs(one_batch.loss):
            raise ConformanceError(
                f"{batches} log a loss of {step.loss:.5f}, one batch of all rows {one_batch.loss:.5f}"
            )


def check_temperature(build: Builder, folder: Path) -> None:
    """Check that the temperature divides both models' logits, and that loss and gradient have the same factor."""
    case = replace(write_case(folder), temperature=TEMPERATURE)
    step, reference = take_step(build, case), reference_step(case)
    if not _same_direction(step, reference):
        if _same_direction(step, reference_step(case, KnownError(temperature=False))):
            raise ConformanceError(
                f"the gradient at temperature {TEMPERATURE} is that at 1: the temperature does not reach the loss"
            )
        raise ConformanceError(
            f"the gradient at temperature {TEMPERATURE} is not that of the divergence at that temperature"
        )
    gradient_factor, loss_factor = norm_ratio(step, reference), step.loss / reference.loss
    if abs(gradient_factor - loss_factor) > TOLERANCE * loss_factor:
        raise ConformanceError(
            f"at temperature {TEMPERATURE} the logged loss is {loss_factor:.3f} times the divergence, its gradient "
            f"{gradient_factor:.3f} times: only one of them is multiplied by the square of the temperature"
        )


def check_vocabulary(build: Builder, folder: Path) -> None:
    """Check that a teacher with padding rows in its head is renormalised over the shared ids."""
    case = write_case(folder, PADDED_VOCAB_SIZE)
    step, reference = take_step(build, case), reference_step(case)
    if relative_difference(step, reference) > TOLERANCE:
        if _same_direction(step, reference_step(case, KnownError(renormalises=False))):
            raise ConformanceError(
                "the padding keeps its mass: the teacher's distribution over the shared ids does not sum to 1"
            )
        raise ConformanceError("the gradient with a padded teacher is not that over the shared ids")


CHECKS: dict[str, Check] = {
    "gradient": check_gradient,
    "shift": check_shift,
    "mask": check_mask,
    "accumulation": check_accumulation,
    "temperature": check_temperature,
    "vocabulary": check_vocabulary,
}
