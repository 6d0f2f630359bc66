"""Measure an arm during training on rows that it does not train on: the points of its recovery curve."""

import math

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from trl_prune.errors import InputError


# When an arm is measured, as shares of its steps, besides the start. The last point before the end comes before the
# decay of `warmup_stable_decay` (`trainers.checked.DECAY_SHARE`).
MEASURED_AT = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
# What is measured, as it is logged and in the result: distillation has the divergence, fine-tuning the cross-entropy.
LOGGED_AS = {"eval_kl": "kl", "eval_loss": "ce"}


def split_validation(rows: Dataset, count: int | None, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return the rows to train on and those to measure, drawn with a seed.

    Raises:
        InputError: no row would be left to train on.
    """
    if count is None:
        return rows, None
    if count >= len(rows):
        raise InputError(f"validation is {count}, and there are {len(rows)} rows; keep some to train on")
    parts = rows.train_test_split(test_size=count, seed=seed)
    return parts["train"], parts["test"]


def check_validation(trainer: SFTTrainer, count: int | None) -> None:
    """Check that tokens to measure are left of the validation rows.

    Raises:
        InputError: none are.
    """
    if count is not None and trainer.eval_dataset is not None and len(trainer.eval_dataset) == 0:
        raise InputError(
            f"the prompts of all {count} validation rows fill max_length {trainer.args.max_length}, so that no token "
            "of an answer is left to measure; raise args.max_length or validation"
        )


def measured_steps(max_steps: int) -> set[int]:
    """Return the steps after which an arm is measured; 0 is the start."""
    return {0} | {max(1, round(share * max_steps)) for share in MEASURED_AT}


class Measurements(TrainerCallback):
    """Has a trainer evaluate at `MEASURED_AT`, and notes the last step's learning rate beside what it measures."""

    def __init__(self):
        self.learning_rate = 0.0

    def on_optimizer_step(self, *_: object, optimizer: torch.optim.Optimizer, **__: object) -> None:
        """Note the rate, which the scheduler changes before the step ends."""
        self.learning_rate = optimizer.param_groups[0]["lr"]

    def on_step_end(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: object) -> None:
        """Ask for an evaluation where one is due."""
        if state.global_step in measured_steps(state.max_steps):
            control.should_evaluate = True

    def on_evaluate(self, _: TrainingArguments, state: TrainerState, *__: object, **___: object) -> None:
        """Note the learning rate beside what was measured."""
        state.log_history[-1]["learning_rate"] = float(self.learning_rate)


def measured_curve(trainer: SFTTrainer, row_tokens: int) -> dict | None:
    """Return what was measured: `metric`, and `points` of tokens, value and learning rate; None without validation.

    A resumed training also measures where it resumes, which changes nothing here.
    """
    state = trainer.state
    steps = measured_steps(state.max_steps)
    entries = {
        entry["step"]: entry
        for entry in reversed(state.log_history)
        if "eval_loss" in entry and entry["step"] in steps
    }
    if not entries:
        return None
    measured = [entries[step] for step in sorted(entries)]
    logged = next(name for name in LOGGED_AS if name in measured[0])
    points = [
        [round(row_tokens * entry["epoch"]), max(entry[logged], 0.0), entry["learning_rate"]]
        for entry in measured
        if math.isfinite(entry[logged])
    ]
    return {"metric": LOGGED_AS[logged], "points": points}
