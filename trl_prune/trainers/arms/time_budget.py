"""A training budget in minutes as tokens: the first steps of an arm are timed, on a model that is thrown away."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback, TrainerState, TrainingArguments
from trl import SFTTrainer

from trl_prune.checkpoints import write_json
from trl_prune.errors import InputError
from trl_prune.trainers.arms.validation import MEASURED_AT


# The first step allocates memory and compiles kernels, so it is not timed.
UNTIMED_STEPS, TIMED_STEPS = 1, 4
TIMING_ARGS = {"max_steps": UNTIMED_STEPS + TIMED_STEPS, "save_strategy": "no", "eval_on_start": False}


class _Timer(TrainerCallback):
    """Times steps, and counts their tokens."""

    def __init__(self):
        self.trainer: SFTTrainer | None = None
        self.seconds = self.tokens = 0.0

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *__: object, **___: object) -> None:
        if state.global_step == UNTIMED_STEPS:
            self.seconds, self.tokens = -time.perf_counter(), -self.trainer._total_train_tokens
        elif state.global_step == UNTIMED_STEPS + TIMED_STEPS:
            self.seconds += time.perf_counter()
            self.tokens += self.trainer._total_train_tokens


def budget_tokens(minutes: float, record: Path, build: Callable[[dict, Path], SFTTrainer]) -> int:
    """Return how many tokens an arm trains on in so many minutes; they are stored, so that it resumes to the same end.

    Args:
        minutes: the time for steps and measurements; loading and saving come on top.
        record: where the number is stored; the same for all processes.
        build: returns the arm's trainer given changes to its arguments and its output folder.

    Raises:
        InputError: not one step fits.
    """
    if not record.is_file():
        _time(minutes, record, build)
    return json.loads(record.read_text())["tokens"]


def _time(minutes: float, record: Path, build: Callable[[dict, Path], SFTTrainer]) -> None:
    folder = record.with_suffix("")
    trainer, timer = build(TIMING_ARGS, folder), _Timer()
    timer.trainer = trainer
    trainer.add_callback(timer)
    trainer.train()
    seconds = 60 * minutes - _measuring_seconds(trainer)
    step_seconds = timer.seconds / TIMED_STEPS
    if seconds < step_seconds:
        raise InputError(
            f"minutes is {minutes:g}, in which not one step fits: a step takes {step_seconds:.3g} s, and measuring "
            f"the validation rows {60 * minutes - seconds:.3g} s; raise it"
        )
    if trainer.is_world_process_zero():
        write_json(record, {"tokens": round(seconds * timer.tokens / timer.seconds), "seconds_per_step": step_seconds})
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _measuring_seconds(trainer: SFTTrainer) -> float:
    """Return the time of all measurements of the validation rows."""
    if trainer.eval_dataset is None:
        return 0.0
    start = time.perf_counter()
    trainer.evaluate()
    return (time.perf_counter() - start) * (1 + len(MEASURED_AT))
