"""Does a distillation trainer take the step it says? Checks of the gradient from outside, for any Trainer.

A trainer is built by a function of yours from a `Case`, takes one step of plain gradient descent with learning rate 1,
and what its weights moved by is its gradient. Each check holds that against dense torch or against another dealing-out
of the same rows, and says in one sentence what is wrong. See docs/kd_conformance.md.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from trl_prune.trainers.conformance.case import PADDED, ROWS, VOCABULARY, Builder, Step, case_in, make_case, take_step
from trl_prune.trainers.conformance.reference import (
    KnownError,
    flat_gradient,
    reference,
    relative_difference,
    scale_and_turn,
)


TEMPERATURE = 2.0


# How far two float32 gradients of the same loss may be relative_difference, as a share of their length.
TOLERANCE = 1e-3


class ConformanceError(AssertionError):
    """What a check found, in one sentence."""


Check = Callable[[Builder, Path], None]


def _same_direction(step: Step, wanted: Step) -> bool:
    return scale_and_turn(step, wanted)[1] < TOLERANCE


def check_gradient(build: Builder, folder: Path) -> None:
    """The divergence has a gradient, and it is finite."""
    flat = flat_gradient(take_step(build, make_case(folder)))
    if not torch.isfinite(flat).all():
        raise ConformanceError("the gradient is not finite")
    if not flat.norm() > 1e-6:
        raise ConformanceError("the gradient is zero: the divergence was computed where autograd does not see it")


def check_shift(build: Builder, folder: Path) -> None:
    """A label is predicted from the token before it."""
    case = make_case(folder)
    step = take_step(build, case)
    if not _same_direction(step, reference(case)) and _same_direction(step, reference(case, KnownError(shift=0))):
        raise ConformanceError(
            "labels are not shifted: the divergence is taken at each label, not one token before it"
        )


def check_mask(build: Builder, folder: Path) -> None:
    """Positions whose label is masked teach nothing, padding among them; all others teach alike."""
    case = make_case(folder)
    step, wanted = take_step(build, case), reference(case)
    if _same_direction(step, reference(case, KnownError(masks=False))):
        raise ConformanceError("masked labels are learned: the divergence is taken at every position")
    if relative_difference(step, wanted) > TOLERANCE:
        scale, turned = scale_and_turn(step, wanted)
        raise ConformanceError(
            f"the gradient is not that of the mean divergence over learned positions: {scale:.4f} times as long, and "
            f"turned by {turned:.4f}"
        )


def check_accumulation(build: Builder, folder: Path) -> None:
    """Four rows make the same step as one batch, as two batches of two and as four of one."""
    case = make_case(folder)
    whole = take_step(build, case)
    for batch_size, accumulation in ((2, 2), (1, 4)):
        parts = take_step(build, case.dealt(batch_size, accumulation))
        if relative_difference(parts, whole) > TOLERANCE:
            raise ConformanceError(
                f"{accumulation} batches of {batch_size} rows make another gradient than one of {len(ROWS)}: "
                f"{scale_and_turn(parts, whole)[0]:.4f} times as long; the loss wants dividing by num_items_in_batch"
            )
        if abs(parts.loss - whole.loss) > TOLERANCE * abs(whole.loss):
            raise ConformanceError(
                f"{accumulation} batches of {batch_size} rows log a loss of {parts.loss:.5f}, one batch of all "
                f"{whole.loss:.5f}"
            )


def check_temperature(build: Builder, folder: Path) -> None:
    """The temperature divides both models' logits, and loss and gradient take the same factor."""
    case = replace(make_case(folder), temperature=TEMPERATURE)
    step, wanted = take_step(build, case), reference(case)
    if not _same_direction(step, wanted):
        if _same_direction(step, reference(case, KnownError(temperature=False))):
            raise ConformanceError(
                f"the gradient at temperature {TEMPERATURE} is that at 1: it does not reach the loss"
            )
        raise ConformanceError(f"the gradient at temperature {TEMPERATURE} is not that of the divergence there")
    of_gradient, of_loss = scale_and_turn(step, wanted)[0], step.loss / wanted.loss
    if abs(of_gradient - of_loss) > TOLERANCE * of_loss:
        raise ConformanceError(
            f"at temperature {TEMPERATURE} the logged loss is {of_loss:.3f} times the divergence, its gradient "
            f"{of_gradient:.3f} times: only one of them has the temperature's square"
        )


def check_vocabulary(build: Builder, folder: Path) -> None:
    """A teacher with rows of padding in its head teaches the shared ids, its mass on them renormalised."""
    case = make_case(folder, PADDED)
    step, wanted = take_step(build, case), reference(case)
    if relative_difference(step, wanted) > TOLERANCE:
        told = "the gradient with a padded teacher is not that over the shared ids"
        if _same_direction(step, reference(case, KnownError(renormalises=False))):
            told = "the padding's mass is missing: the teacher's distribution over the shared ids does not sum to 1"
        raise ConformanceError(told)


def check_processes(name: str, folder: Path) -> None:
    """Two processes make the step that one makes.

    Args:
        name: the builder as `module:function`, importable by a fresh process.
        folder: for the case and what the processes write.
    """
    make_case(folder)
    one, two = (_launched(name, folder, count) for count in (1, 2))
    if (flat_gradient(two[0]) - flat_gradient(two[1])).abs().max() > 0:
        raise ConformanceError("two processes end with different weights: their gradients were not averaged")
    if relative_difference(two[0], one[0]) > TOLERANCE:
        raise ConformanceError(
            f"two processes make another gradient than one: {scale_and_turn(two[0], one[0])[0]:.4f} times as long; DDP "
            "averages over processes what num_items_in_batch counted over all of them"
        )


def _launched(name: str, folder: Path, processes: int) -> list[Step]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    worker = ["-m", "trl_prune.trainers.conformance.checks", name, str(folder)]
    told = subprocess.run([*command, *worker], env=environment, capture_output=True, text=True)
    if told.returncode:
        raise ConformanceError(f"{processes} processes fail: {told.stderr.strip()[-1500:]}")
    return [Step(load_file(folder / f"{processes}-{rank}.safetensors"), 0.0) for rank in range(processes)]


def work(name: str, folder: str) -> None:
    """Take a step as one of the processes that torchrun started, and write down what it did."""
    module, _, function = name.partition(":")
    build: Builder = getattr(importlib.import_module(module), function)
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    case = case_in(Path(folder), VOCABULARY).dealt(len(ROWS) // processes, 1)
    gradient = {key: part.contiguous() for key, part in take_step(build, case).gradient.items()}
    save_file(gradient, Path(folder) / f"{processes}-{rank}.safetensors")


CHECKS: dict[str, Check] = {
    "gradient": check_gradient,
    "shift": check_shift,
    "mask": check_mask,
    "accumulation": check_accumulation,
    "temperature": check_temperature,
    "vocabulary": check_vocabulary,
}


if __name__ == "__main__":
    work(*sys.argv[1:])
