"""Settings of a recovery arm, the config class of each method and its default arguments."""

from dataclasses import dataclass, field
from pathlib import Path

from trl import SFTConfig

from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.local_kd.config import LocalKDConfig
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig


CONFIG_CLASSES: dict[str, type[SFTConfig]] = {
    "sft": SelfDistillSFTConfig,
    "kd": KDConfig,
    "local_kd": LocalKDConfig,
}
# Overridden by the user's arguments. Saves fall on logging steps, so that a resumed run logs what an uninterrupted one
# logs.
DEFAULT_ARGS = {
    "report_to": "none",
    "logging_steps": 10,
    "save_strategy": "steps",
    "save_steps": 50,
    "save_total_limit": 1,
    "learning_rate": 1e-4,
    "lr_scheduler_type": "cosine",
}


@dataclass(frozen=True)
class ArmSettings:
    """Settings of one arm's training.

    Attributes:
        student: the checkpoint to train.
        output_dir: the trainer's `output_dir`, where it saves its checkpoints.
        args: arguments of the method's config class.
        peft: arguments of LoraConfig; None trains all weights.
        tokens: the training budget; None leaves the length of training to `minutes` or `args`.
        method: `sft`, `kd` or `local_kd`.
        teacher: the teacher's checkpoint; not loaded where there is a cache.
        teacher_cache: the folder with the teacher's stored outputs.
        minutes: the training budget in time.
        validation: how many of the rows are measured, not trained on.
    """

    student: Path
    output_dir: Path
    args: dict = field(default_factory=dict)
    peft: dict | None = None
    tokens: int | None = None
    method: str = "sft"
    teacher: Path | None = None
    teacher_cache: Path | None = None
    minutes: float | None = None
    validation: int | None = None
