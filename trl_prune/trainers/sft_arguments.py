"""What a drop-in for SFTTrainer is given, in our own terms."""

import inspect
from dataclasses import fields
from typing import TypeVar

from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from trl_prune.trainers.trl_names import config_model_id


Config = TypeVar("Config", bound=SFTConfig)


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
    # Not `to_dict`, which hides every field whose name ends in `_token`.
    return kind(**{entry.name: getattr(args, entry.name) for entry in fields(args) if entry.init})
