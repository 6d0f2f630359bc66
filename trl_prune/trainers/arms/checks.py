"""Checks of an arm's arguments against TRL's and peft's, before any model is loaded."""

from dataclasses import fields

import torch
from peft import LoraConfig
from transformers import get_scheduler
from trl import SFTConfig

from trl_prune.errors import KEY_SIMILARITY, InputError, closest, first_line
from trl_prune.trainers.arms.settings import CONFIG_CLASSES, DEFAULT_ARGS
from trl_prune.trainers.checked import scheduler_kwargs
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import block_pairs
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.sft_arguments import lora_config


# Arguments that training an arm sets itself or does not support.
RESERVED_ARGS = {
    "output_dir",
    "rewrite",
    "teacher_cache",
    "resume_from_checkpoint",
    "eval_strategy",
    "eval_on_start",
    "do_eval",
    "load_best_model_at_end",
} | {field.name for field in fields(SelfDistillSFTConfig) if field.name.startswith("rewrite_")}
# What arguments are called elsewhere, for "did you mean".
OTHER_NAMES = {
    "alpha": "lora_alpha",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "grad_accum": "gradient_accumulation_steps",
    "lora_r": "r",
    "lora_rank": "r",
    "lr": "learning_rate",
    "max_seq_length": "max_length",
    "num_epochs": "num_train_epochs",
    "rank": "r",
    "scheduler": "lr_scheduler_type",
    "warmup": "warmup_steps",
}
LOSS_TYPES = ("nll", "dft")
# transformers 5.23 gives these samplers no seeded generator: a resumed run would draw other batches.
UNSEEDED_SAMPLING_STRATEGIES = ("group_by_length", "batch_rebalance")


def check_arm(args: dict, peft: dict | None, method: str = "sft", dense_blocks: int | None = None) -> None:
    """Check an arm's arguments against those of the method's config class and of LoraConfig.

    Args:
        args: arguments of the config class.
        peft: arguments of LoraConfig; None where all weights are trained.
        method: `sft`, `kd` or `local_kd`.
        dense_blocks: the dense model's number of blocks, which a student cannot exceed; None where it is unknown.

    Raises:
        InputError: an unknown or reserved name, or a rejected value; the message starts with the key.
    """
    config_class, lora = CONFIG_CLASSES[method], peft or {}
    _check_names("args", args, {field.name for field in fields(config_class)} - RESERVED_ARGS)
    _check_names("peft", lora, {field.name for field in fields(LoraConfig)})
    values = DEFAULT_ARGS | args
    _check_resumable(values)
    for name in ("target_modules", "modules_to_save"):
        if "lm_head" in (lora.get(name) or ()):
            raise InputError(f"peft.{name} has 'lm_head', whose products are fused with the loss; leave it out")
    try:
        config = config_class("unused", **values)
        _check_config(config, dense_blocks)
        lora_config(lora)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"args: {first_line(error)}") from error
    _check_trainer(config)


def argument_key(name: str) -> str | None:
    """Return a training or LoRA argument's key, `args.NAME` or `peft.NAME`, given its name or a common other one."""
    name = OTHER_NAMES.get(name, name)
    if name in RESERVED_ARGS:
        return None
    if name in {field.name for field in fields(KDConfig)}:
        return f"args.{name}"
    return f"peft.{name}" if name in {field.name for field in fields(LoraConfig)} else None


def _check_names(section: str, values: dict, known: set[str]) -> None:
    for name in values:
        if name not in known:
            raise InputError(f"{section}.{name} is not an accepted argument{_hint(section, name, known)}")


def _hint(section: str, name: str, known: set[str]) -> str:
    likely = argument_key(name)
    if likely == f"{section}.{name}":
        return "; `method: kd` accepts it"
    if likely is None:
        similar = closest(name, known, KEY_SIMILARITY)
        likely = f"{section}.{similar}" if similar else None
    return f"; did you mean {likely!r}?" if likely else ""


def _check_resumable(args: dict) -> None:
    """Check that a resumed run draws the batches and logs the steps of an uninterrupted one."""
    if args.get("train_sampling_strategy") in UNSEEDED_SAMPLING_STRATEGIES:
        raise InputError(
            f"args.train_sampling_strategy is {args['train_sampling_strategy']!r}, which does not resume to the same "
            "batches; allowed: random, sequential"
        )
    if args["save_strategy"] == "best":
        raise InputError("args.save_strategy is 'best', which needs evaluations; allowed: steps, epoch, no")
    if args["save_strategy"] == "steps" and args["save_steps"] % args["logging_steps"]:
        raise InputError(
            f"args.save_steps is {args['save_steps']}; wanted: a multiple of logging_steps ({args['logging_steps']}), "
            "so that a resumed run logs the same steps as an uninterrupted one"
        )


def _check_config(config: SFTConfig, dense_blocks: int | None) -> None:
    if dense_blocks and isinstance(config, KDConfig) and isinstance(config.layer_map, dict):
        block_pairs(config.layer_map, dense_blocks, dense_blocks, None)
    # transformers reads the scheduler's arguments only when training begins, maybe hours after the recipe was read.
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    get_scheduler(config.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=scheduler_kwargs(config, 10))


def _check_trainer(config: SFTConfig) -> None:
    """Check what TRL's trainer would refuse of the arguments alone, once the student is loaded (TRL 1.16)."""
    if config.padding_free and not config.packing and config.max_length is not None:
        raise InputError(
            f"args.padding_free needs args.max_length null or args.packing, and max_length is {config.max_length}"
        )
    if config.loss_type not in LOSS_TYPES:
        raise InputError(f"args.loss_type is {config.loss_type!r}; wanted: {' or '.join(LOSS_TYPES)}")
    checkpointing = config.gradient_checkpointing_kwargs or {}
    if checkpointing.get("selective") and (not config.gradient_checkpointing or checkpointing.get("use_reentrant")):
        raise InputError(
            "args.gradient_checkpointing_kwargs.selective needs args.gradient_checkpointing, without use_reentrant"
        )
