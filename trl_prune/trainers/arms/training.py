"""Train one recovery arm, resuming from its last complete checkpoint, and write an ordinary checkpoint."""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy
from trl import SFTTrainer

from trl_prune.checkpoints import load_tokenizer, write_json
from trl_prune.errors import InputError
from trl_prune.trainers.arms.saving import full_model, last_complete_checkpoint, save_recovered
from trl_prune.trainers.arms.settings import CONFIG_CLASSES, DEFAULT_ARGS, ArmSettings
from trl_prune.trainers.arms.time_budget import budget_tokens
from trl_prune.trainers.arms.validation import Measurements, check_validation, measured_curve, split_validation
from trl_prune.trainers.checked import CheckedSFTTrainer
from trl_prune.trainers.kd.trainer import KDTrainer
from trl_prune.trainers.local_kd.trainer import LocalKDTrainer
from trl_prune.trainers.preparation import trainable_rows
from trl_prune.trainers.self_distill.trainer import SelfDistillSFTTrainer
from trl_prune.trainers.sft_arguments import lora_config, use_one_device


TRAINER_CLASSES: dict[str, type[CheckedSFTTrainer]] = {
    "sft": SelfDistillSFTTrainer,
    "kd": KDTrainer,
    "local_kd": LocalKDTrainer,
}
# What changes in the default arguments of an arm that is measured: points at one learning rate lie on one curve.
MEASURED_ARGS = {"eval_on_start": True, "lr_scheduler_type": "warmup_stable_decay"}
# The metrics of the trainer's `log_history` that an arm's log keeps.
LOGGED_METRICS = (
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "mean_token_accuracy",
    "ce_loss",
    "kd_loss",
    "hidden_loss",
    "kd_weight",
    "hidden_weight",
)


@dataclass(frozen=True)
class TrainingResult:
    """Result of training an arm.

    Attributes:
        log: one entry per logging step.
        tokens: tokens trained on over all epochs, without padding.
        row_tokens: tokens of all rows, counted once.
        steps: optimizer steps.
        final_loss: the mean loss of the last logging interval.
        curve: what was measured on validation rows (`arms.validation.measured_curve`).
    """

    log: list[dict]
    tokens: int
    row_tokens: int
    steps: int
    final_loss: float | None
    curve: dict | None = None


class _AlreadyTrainedError(Exception):
    """The checkpoint that a training resumes from is that of its last step."""


class _LastStep(TrainerCallback):
    """Keeps what the last step made: it is always saved, and a resumed training does not go beyond it.

    transformers would train one more step after a last checkpoint in the middle of an epoch.
    """

    def on_train_begin(self, _: TrainingArguments, state: TrainerState, *__: object, **___: object) -> None:
        if state.global_step >= state.max_steps:
            raise _AlreadyTrainedError

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.global_step >= state.max_steps and args.save_strategy == SaveStrategy.NO:
            control.should_save = True


def train_arm(settings: ArmSettings, rows: Dataset, target: Path) -> TrainingResult:
    """Train an arm, from its last complete checkpoint if it has one, and write the recovered model to `target`.

    The model is an ordinary checkpoint: adapters merged, weights in the student's own dtype, tokenizer and licence
    beside them. A training that has ended is not repeated, whatever was interrupted after it: the last step is saved
    before anything is made of it, and the result is written beside the trainer's checkpoints.

    Raises:
        InputError: the student's configs cannot be saved, which is tried before the training, the budget is too
            small for a step, or a step's loss or gradient is no number.
    """
    record = settings.output_dir.with_name(f"{settings.output_dir.name}.json")
    if record.is_file() and target.is_dir():
        return TrainingResult(**json.loads(record.read_text()))
    tokens = _budget(settings, rows)
    trainer = build_trainer(settings, rows)
    trainer.check_saving()
    check_validation(trainer, settings.validation)
    row_tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    if settings.tokens is not None:
        _check_tokens(trainer, settings.tokens, row_tokens)
    if tokens is not None:
        trainer.args.num_train_epochs = tokens / row_tokens
    _train(trainer, last_complete_checkpoint(settings.output_dir))
    model, result = full_model(trainer, settings), _result(trainer, row_tokens)
    if trainer.is_world_process_zero():
        save_recovered(model, settings.student, target)
        write_json(record, asdict(result))
        shutil.rmtree(settings.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return result


def _budget(settings: ArmSettings, rows: Dataset) -> int | None:
    """Return the training budget in tokens, or None where `args` decide."""
    if settings.minutes is None:
        return settings.tokens

    # A teacher is corrected once, for the arm itself.
    uncorrected = {"teacher_correction": None} if settings.method == "kd" else {}

    def build(args: dict, output_dir: Path) -> CheckedSFTTrainer:
        changed = settings.args | args | uncorrected
        return build_trainer(replace(settings, args=changed, output_dir=output_dir), rows)

    return budget_tokens(
        settings.minutes, settings.output_dir.with_name(f"{settings.output_dir.name}-time.json"), build
    )


def _check_tokens(trainer: SFTTrainer, tokens: int, row_tokens: int) -> None:
    """Check that a budget in tokens has those of a step of mean length, unless `max_steps` decides."""
    args, rows = trainer.args, len(trainer.train_dataset)
    step_rows = min(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size, rows)
    step_tokens = row_tokens * step_rows / rows
    if args.max_steps <= 0 and tokens < step_tokens:
        raise InputError(
            f"tokens is {tokens:,}, and a step of {step_rows} rows has {step_tokens:,.0f}; raise it, or "
            "lower args.per_device_train_batch_size or args.gradient_accumulation_steps"
        )


def _train(trainer: CheckedSFTTrainer, checkpoint: Path | None) -> None:
    trainer.add_callback(_LastStep())
    with suppress(_AlreadyTrainedError):  # with the checkpoint's weights and state
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _result(trainer: SFTTrainer, row_tokens: int) -> TrainingResult:
    state = trainer.state
    log = [
        {name: entry[name] for name in LOGGED_METRICS if name in entry}
        for entry in state.log_history
        if "loss" in entry
    ]
    final_loss = log[-1]["loss"] if log else None
    tokens, curve = round(row_tokens * state.epoch), measured_curve(trainer, row_tokens)
    return TrainingResult(log, tokens, row_tokens, state.global_step, final_loss, curve)


def build_trainer(settings: ArmSettings, rows: Dataset) -> CheckedSFTTrainer:
    """Return the trainer of an arm; all methods get their rows in one format, so that losses are comparable."""
    method_args = {
        "sft": {"rewrite": False},  # the recipe's `rewrite` stage wrote the rows
        "kd": {"teacher_cache": None if settings.teacher_cache is None else str(settings.teacher_cache)},
    }.get(settings.method, {})
    config_class = CONFIG_CLASSES[settings.method]
    values = settings.args | method_args
    is_measured = settings.validation is not None and settings.method != "local_kd"
    if is_measured:
        batch_size = values.get("per_device_train_batch_size", config_class.per_device_train_batch_size)
        values = MEASURED_ARGS | {"per_device_eval_batch_size": batch_size} | values
    args = config_class(str(settings.output_dir), **(DEFAULT_ARGS | values))
    use_one_device(args)
    tokenizer = load_tokenizer(settings.student)
    # Before the split, so that both parts are prepared alike.
    rows, args = trainable_rows(rows, args, lambda: tokenizer, answers_only=True)
    rows, validation = split_validation(rows, settings.validation, args.seed)
    has_online_teacher = settings.teacher is not None and settings.teacher_cache is None
    return TRAINER_CLASSES[settings.method](
        str(settings.student),
        args,
        train_dataset=rows,
        eval_dataset=validation if is_measured else None,
        processing_class=tokenizer,
        peft_config=None if settings.peft is None else lora_config(settings.peft),
        callbacks=[Measurements()] if is_measured else None,
        **({"teacher_model": str(settings.teacher)} if has_online_teacher else {}),
    )
