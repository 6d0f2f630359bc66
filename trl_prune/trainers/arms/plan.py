"""What a recovery arm trains, and the checks of its arguments against TRL's and peft's."""

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from peft import LoraConfig
from transformers import get_scheduler
from trl import SFTConfig

from trl_prune.errors import InputError, first_line
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import block_pairs
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.sft_arguments import LORA_DEFAULTS


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


OWN = {
    "output_dir",
    "rewrite",
    "teacher_cache",
    "resume_from_checkpoint",
    "eval_strategy",
    "do_eval",
    "load_best_model_at_end",
}


CONFIGS: dict[str, type[SFTConfig]] = {"sft": SelfDistillSFTConfig, "kd": KDConfig}


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
