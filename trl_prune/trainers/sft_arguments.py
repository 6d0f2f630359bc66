"""What a drop-in for SFTTrainer is given, in our own terms."""

import inspect
from dataclasses import fields
from typing import TypeVar

from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from trl_prune.trainers.trl_names import config_model_id


Config = TypeVar("Config", bound=SFTConfig)
# LoRA as self-data distillation's predecessor trained (arXiv 2402.13669), on every linear layer of the blocks.
LORA_DEFAULTS = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def by_name(rest: tuple, more: dict) -> dict:
    """Return SFTTrainer's arguments after `train_dataset` by name, however they were given."""
    names = list(inspect.signature(SFTTrainer.__init__).parameters)
    after = names[names.index("train_dataset") + 1 :]
    named = dict(zip(after, rest, strict=False))
    if len(rest) > len(after) or named.keys() & more.keys():
        raise TypeError(f"SFTTrainer takes {len(names) - 1} arguments, each of them once")
    return named | more


def own_config(kind: type[Config], args: SFTConfig | TrainingArguments | None, model: object, suffix: str) -> Config:
    """Return arguments of any kind as ours, as SFTTrainer does with plain TrainingArguments."""
    if isinstance(args, kind):
        return args
    if args is None:
        name = model if isinstance(model, str) else config_model_id(model.config)
        return kind(f"{name.split('/')[-1]}-{suffix}")
    known = {entry.name for entry in fields(kind) if entry.init}  # a subclass of theirs may have fields of its own
    # Not `to_dict`, which hides every field whose name ends in `_token`.
    return kind(**{entry.name: getattr(args, entry.name) for entry in fields(args) if entry.name in known})


def on_one_device(args: TrainingArguments) -> None:
    """Let a process train on one device; TRL refuses DataParallel, which several visible GPUs mean."""
    if args.n_gpu > 1:
        args._n_gpu = 1
