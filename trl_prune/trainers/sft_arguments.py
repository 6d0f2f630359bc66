"""Conversion of SFTTrainer's constructor arguments for the subclasses in this package."""

import inspect
from dataclasses import fields
from typing import TypeVar

from peft import LoraConfig
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from trl_prune.trainers.trl_names import config_model_id


Config = TypeVar("Config", bound=SFTConfig)
# LoRA as in the predecessor of self-data distillation (arXiv 2402.13669), on every linear layer of the blocks.
LORA_DEFAULTS = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def lora_config(peft: dict[str, object] | None = None) -> LoraConfig:
    """Return LoRA's config: the given arguments over LORA_DEFAULTS."""
    return LoraConfig(**(LORA_DEFAULTS | (peft or {})))


def named_arguments(args: tuple, kwargs: dict) -> dict:
    """Return SFTTrainer's arguments after `train_dataset` by name, given by position or by name."""
    names = list(inspect.signature(SFTTrainer.__init__).parameters)
    remaining = names[names.index("train_dataset") + 1 :]
    named = dict(zip(remaining, args, strict=False))
    if len(args) > len(remaining) or named.keys() & kwargs.keys():
        raise TypeError(f"SFTTrainer takes {len(names) - 1} arguments, each at most once")
    return named | kwargs


def convert_config(
    config_class: type[Config], args: SFTConfig | TrainingArguments | None, model: object, suffix: str
) -> Config:
    """Return training arguments as an instance of `config_class`, as SFTTrainer converts plain TrainingArguments.

    Args:
        config_class: the trainer's config class.
        args: the user's; None for the defaults, with an `output_dir` named after the model.
        model: the trainer's model, or its name.
        suffix: the end of that `output_dir`.
    """
    if isinstance(args, config_class):
        return args
    if args is None:
        name = model if isinstance(model, str) else config_model_id(model.config)
        return config_class(f"{name.split('/')[-1]}-{suffix}")
    # The user's own subclass may have fields that `config_class` lacks.
    known = {field.name for field in fields(config_class) if field.init}
    # Not `to_dict`, which hides every field whose name ends in `_token`.
    return config_class(**{field.name: getattr(args, field.name) for field in fields(args) if field.name in known})


def use_one_device(args: TrainingArguments) -> None:
    """Make a process train on one device; several visible GPUs would select DataParallel, which TRL refuses."""
    if args.n_gpu > 1:
        args._n_gpu = 1
