"""Measure an arm during training on rows that it does not train on: the points of its recovery curve."""

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from trl_prune.errors import InputError


# When an arm is measured, as shares of its steps, besides the start. The last point before the end comes before the
# decay of `warmup_stable_decay` (`trainers.checked.DECAY_SHARE`).
MEASURED_AT = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
# What is measured, as it is logged: distillation has the divergence, fine-tuning only the cross-entropy.
METRICS = {"eval_kl": "kl", "eval_loss": "ce"}


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


class Measurements(TrainerCallback):
    """Has a trainer evaluate at `MEASURED_AT`, and keeps the learning rate of these points in its log."""

    def on_step_end(self, _: TrainingArguments, state: TrainerState, control: TrainerControl, **__: object) -> None:
        """Ask for an evaluation where one is due."""
        if state.global_step in {max(1, round(share * state.max_steps)) for share in MEASURED_AT}:
            control.should_evaluate = True

    def on_evaluate(
        self, _: TrainingArguments, state: TrainerState, __: TrainerControl, lr_scheduler: object, **___: object
    ) -> None:
        """Note the learning rate beside what was measured."""
        state.log_history[-1]["learning_rate"] = lr_scheduler.get_last_lr()[0] if state.global_step else 0.0


def recovery_curve(trainer: SFTTrainer, row_tokens: int) -> dict | None:
    """Return what was measured: `metric`, and `points` of tokens, value and learning rate; None without validation.

    A resumed training measures where it resumes once more; the first of equal points counts.
    """
    entries = {entry["step"]: entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry}
    if not entries:
        return None
    measured = [entries[step] for step in sorted(entries)]
    logged = next(name for name in METRICS if name in measured[0])
    points = [[round(row_tokens * entry["epoch"]), entry[logged], entry["learning_rate"]] for entry in measured]
    return {"metric": METRICS[logged], "points": points}
