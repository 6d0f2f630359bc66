"""Train one recovery arm, resuming from its last complete checkpoint, and write an ordinary checkpoint."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTTrainer

from trl_prune.checkpoints import load_tokenizer
from trl_prune.data.rewriting.acceptance import is_rewritten
from trl_prune.trainers.arms.plan import CONFIGS, DEFAULTS, ArmPlan
from trl_prune.trainers.arms.saving import last_whole_checkpoint, save_recovered, whole_model
from trl_prune.trainers.kd.trainer import KDTrainer
from trl_prune.trainers.self_distill.trainer import SelfDistillSFTTrainer, messages_to_prompt_completion
from trl_prune.trainers.sft_arguments import LORA_DEFAULTS, on_one_device


LOGGED = (
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


TRAINERS: dict[str, type[SFTTrainer]] = {"sft": SelfDistillSFTTrainer, "kd": KDTrainer}


@dataclass(frozen=True)
class Trained:
    """What training an arm gave.

    Attributes:
        log: one entry per logging step.
        tokens: tokens seen, padding not counted.
        row_tokens: tokens of all rows once.
        steps: optimizer steps.
        final_loss: the mean loss of the last logging step.
    """

    log: list[dict]
    tokens: int
    row_tokens: int
    steps: int
    final_loss: float | None


def train_arm(plan: ArmPlan, rows: Dataset, target: Path) -> Trained:
    """Train an arm, from its last whole checkpoint if it has one, and write the recovered model.

    The model is an ordinary checkpoint: adapters merged, weights in the student's own dtype, tokenizer and licence
    beside them.
    """
    trainer = build_trainer(plan, rows)
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    if plan.tokens is not None:
        trainer.args.num_train_epochs = plan.tokens / tokens
    checkpoint = last_whole_checkpoint(plan.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model = whole_model(trainer, plan)
    if trainer.is_world_process_zero():
        save_recovered(model, plan.student, target)
        shutil.rmtree(plan.output_dir, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    log = [{key: entry[key] for key in LOGGED if key in entry} for entry in trainer.state.log_history]
    log = [entry for entry in log if "loss" in entry]
    losses = [entry["loss"] for entry in log]
    seen = round(tokens * trainer.state.epoch)
    return Trained(log, seen, tokens, trainer.state.global_step, losses[-1] if losses else None)


def build_trainer(plan: ArmPlan, rows: Dataset) -> SFTTrainer:
    """Return the trainer of an arm; all kinds of arm see their data in one format, so that losses compare."""
    own = {
        "sft": {"rewrite": is_rewritten(rows.column_names)},
        "kd": {"teacher_cache": None if plan.teacher_cache is None else str(plan.teacher_cache)},
    }
    args = CONFIGS[plan.method](str(plan.output_dir), **(DEFAULTS | plan.args | own[plan.method]))
    on_one_device(args)
    online = plan.method == "kd" and plan.teacher_cache is None
    return TRAINERS[plan.method](
        str(plan.student),
        args,
        train_dataset=messages_to_prompt_completion(rows, args),
        processing_class=load_tokenizer(plan.student),
        peft_config=None if plan.peft is None else LoraConfig(**(LORA_DEFAULTS | plan.peft)),
        **({"teacher_model": str(plan.teacher)} if online else {}),
    )
