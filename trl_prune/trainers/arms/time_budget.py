"""A training budget in minutes as tokens: the first steps of an arm are timed, on a model that is thrown away."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from accelerate.utils import broadcast_object_list, release_memory
from transformers import TrainerCallback, TrainerState, TrainingArguments
from trl import SFTTrainer

from trl_prune.checkpoints import write_json
from trl_prune.errors import InputError
from trl_prune.trainers.arms.validation import MEASURED_AT, Measurements


# The first step allocates memory and compiles kernels, so it is not timed.
UNTIMED_STEPS, TIMED_STEPS = 1, 4
# What the timing changes of an arm's arguments: nothing of it is kept or published.
TIMING_ARGS = {
    "max_steps": UNTIMED_STEPS + TIMED_STEPS,
    "save_strategy": "no",
    "eval_on_start": False,
    "report_to": "none",
    "push_to_hub": False,
}


class _Timer(TrainerCallback):
    """Times a trainer's steps, and counts their tokens."""

    def __init__(self, trainer: SFTTrainer):
        self.trainer = trainer
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
        minutes: the time for steps and measurements; loading, timing and saving come on top.
        record: where the number is stored; the same for all processes.
        build: returns the arm's trainer given changes to its arguments and its output folder.

    Raises:
        InputError: not one step fits.
    """
    if not record.is_file():
        _time(minutes, record, build)
        release_memory()  # a trainer and its model refer to each other, and the arm's own are loaded next
    return json.loads(record.read_text())["tokens"]


def _time(minutes: float, record: Path, build: Callable[[dict, Path], SFTTrainer]) -> None:
    folder = record.with_suffix("")
    trainer = build(TIMING_ARGS, folder)
    trainer.remove_callback(Measurements)
    timer = _Timer(trainer)
    trainer.add_callback(timer)
    trainer.train()
    # The first process's clock counts for all.
    step_seconds, step_tokens, measuring_seconds = broadcast_object_list(
        [timer.seconds / TIMED_STEPS, timer.tokens / TIMED_STEPS, _measuring_seconds(trainer)]
    )
    seconds = 60 * minutes - measuring_seconds
    if seconds < step_seconds:
        raise InputError(
            f"minutes is {minutes:g}, in which not one step fits: a step takes {step_seconds:.3g} s, and measuring "
            f"the validation rows {measuring_seconds:.3g} s; raise it"
        )
    if trainer.is_world_process_zero():
        write_json(record, {"tokens": round(seconds / step_seconds * step_tokens), "seconds_per_step": step_seconds})
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _measuring_seconds(trainer: SFTTrainer) -> float:
    """Return the time of all measurements of the validation rows."""
    if trainer.eval_dataset is None:
        return 0.0
    start = time.perf_counter()
    trainer.evaluate()
    return (time.perf_counter() - start) * (1 + len(MEASURED_AT))
