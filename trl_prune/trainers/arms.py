"""One recovery arm: build the trainer, go on where it stopped, hand back a plain checkpoint."""

import difflib
import json
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel, get_scheduler
from transformers.integrations import unset_hf_deepspeed_config
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import (
    atomic_folder,
    copy_companions,
    library_versions,
    load_config,
    load_tokenizer,
    read_provenance,
    write_provenance,
)
from trl_prune.data.rewriting import is_rewritten
from trl_prune.errors import InputError, first_line
from trl_prune.trainers.hidden_term import PROJECTION
from trl_prune.trainers.kd_config import KDConfig
from trl_prune.trainers.kd_state import without_projection
from trl_prune.trainers.kd_trainer import KDTrainer
from trl_prune.trainers.layer_map import block_pairs
from trl_prune.trainers.self_distill_sft_config import SelfDistillSFTConfig
from trl_prune.trainers.self_distill_sft_trainer import SelfDistillSFTTrainer, answers_apart
from trl_prune.trainers.sft_arguments import LORA_DEFAULTS, on_one_device


# Beneath the user's own arguments. Saves fall on logging steps, so that a resumed run logs what an unbroken one logs.
DEFAULTS = {
    "report_to": "none",
    "logging_steps": 10,
    "save_strategy": "steps",
    "save_steps": 50,
    "save_total_limit": 1,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
}
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
OWN = {
    "output_dir",
    "rewrite",
    "teacher_cache",
    "resume_from_checkpoint",
    "eval_strategy",
    "do_eval",
    "load_best_model_at_end",
}
TRAINERS: dict[str, type[SFTTrainer]] = {"sft": SelfDistillSFTTrainer, "kd": KDTrainer}
CONFIGS: dict[str, type[SFTConfig]] = {"sft": SelfDistillSFTConfig, "kd": KDConfig}
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
# These draw other batches after a resume than an unbroken run does: transformers 5.23 gives them no seeded generator.
UNSEEDED_SAMPLING = ("group_by_length", "batch_rebalance")


@dataclass(frozen=True)
class ArmPlan:
    """What an arm trains.

    Attributes:
        student: the checkpoint to train.
        output_dir: where the trainer keeps its checkpoints.
        args: TRL's arguments.
        peft: LoRA's arguments; all weights are trained where None.
        tokens: the training budget; `args` decides where None.
        method: `sft`, or `kd`.
        teacher: the checkpoint that is distilled; not loaded where there is a cache.
        teacher_cache: what the teacher was found to say before.
    """

    student: Path
    output_dir: Path
    args: dict = field(default_factory=dict)
    peft: dict | None = None
    tokens: int | None = None
    method: str = "sft"
    teacher: Path | None = None
    teacher_cache: Path | None = None


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


def check_arm(args: dict, peft: dict | None, method: str = "sft", dense_blocks: int | None = None) -> None:
    """Check an arm's arguments against TRL's, its method's and peft's.

    Args:
        args: TRL's.
        peft: LoraConfig's; None where all weights are trained.
        method: `sft` or `kd`.
        dense_blocks: how many blocks the dense model has, and a student at most, where that is known.

    Raises:
        InputError: an unknown name, one that is ours to set, or a value they refuse; it starts with the key.
    """
    config = CONFIGS[method]
    _check_names("args", args, {entry.name for entry in fields(config)} - OWN)
    _check_names("peft", peft or {}, {entry.name for entry in fields(LoraConfig)})
    told = DEFAULTS | args
    if told.get("train_sampling_strategy") in UNSEEDED_SAMPLING:
        raise InputError(
            f"args.train_sampling_strategy is {told['train_sampling_strategy']!r}, which does not resume to the same "
            "batches; allowed: random, sequential"
        )
    if told["save_strategy"] == "steps" and told["save_steps"] % told["logging_steps"]:
        raise InputError(
            f"args.save_steps is {told['save_steps']}; wanted: a multiple of logging_steps ({told['logging_steps']}), "
            "so that a resumed run logs what an unbroken one does"
        )
    for name in ("target_modules", "modules_to_save"):
        if "lm_head" in ((peft or {}).get(name) or ()):
            raise InputError(f"peft.{name} has 'lm_head', whose products are fused with the loss; leave it out")
    try:
        _check_made(config("unused", **told), dense_blocks)
        LoraConfig(**(LORA_DEFAULTS | (peft or {})))
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"args: {first_line(error)}") from error


def _check_made(args: SFTConfig, dense_blocks: int | None) -> None:
    if dense_blocks and isinstance(args, KDConfig) and isinstance(args.layer_map, dict):
        block_pairs(args.layer_map, dense_blocks, dense_blocks, None)
    # transformers looks at these only when training begins, which may be hours after the recipe was read.
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    told = args.lr_scheduler_kwargs or {}
    get_scheduler(args.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=dict(told))


def _check_names(section: str, given: dict, known: set[str]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{section}.{name} is no argument here{hint}")


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
        train_dataset=answers_apart(rows, args),
        processing_class=load_tokenizer(plan.student),
        peft_config=None if plan.peft is None else LoraConfig(**(LORA_DEFAULTS | plan.peft)),
        **({"teacher_model": str(plan.teacher)} if online else {}),
    )


def whole_model(trainer: SFTTrainer, plan: ArmPlan) -> PreTrainedModel | PeftModel:
    """Return the trained model; where it is spread over processes, the first one gathers it into a fresh one."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type not in SHARDED:
        return unquantised(accelerator.unwrap_model(trainer.model), plan)
    state = without_projection(accelerator.get_state_dict(trainer.model_wrapped))
    unset_hf_deepspeed_config()  # while it is set, ZeRO-3 makes every new model of empty shards
    model = _fresh(plan)
    if trainer.is_world_process_zero():
        model.load_state_dict(state)
    return model


def unquantised(model: PreTrainedModel | PeftModel, plan: ArmPlan) -> PreTrainedModel | PeftModel:
    """Return a trained model; an adapter on quantised weights (QLoRA) is put on those it was quantised from."""
    if not (isinstance(model, PeftModel) and getattr(model.get_base_model(), "is_quantized", False)):
        return model
    fresh = _fresh(plan)
    set_peft_model_state_dict(fresh, get_peft_model_state_dict(model))
    return fresh


def _fresh(plan: ArmPlan) -> PreTrainedModel | PeftModel:
    model = AutoModelForCausalLM.from_pretrained(plan.student, dtype=torch.float32)
    return model if plan.peft is None else get_peft_model(model, LoraConfig(**(LORA_DEFAULTS | plan.peft)))


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest of a trainer's checkpoints that was written to its end; the state file comes last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((path for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] > 0
    except (OSError, ValueError, KeyError):
        return False


def save_recovered(model: PreTrainedModel | PeftModel, student: Path, target: Path) -> None:
    """Write a trained model as a plain checkpoint that carries its student's companions and provenance."""
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if PROJECTION in dict(model.named_children()):
        delattr(model, PROJECTION)
    told = load_config(student)
    model = model.to(told.dtype)
    model.config.use_cache = told.use_cache  # the Trainer turns it off for training
    with atomic_folder(target) as part:
        copy_companions(student, part)
        model.save_pretrained(part)
        provenance = read_provenance(student)
        if provenance is not None:
            told = replace(provenance, parent=str(student), versions=library_versions())
            write_provenance(told, part)
