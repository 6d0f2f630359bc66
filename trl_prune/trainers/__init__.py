"""Learning: TRL's trainers with more in them. The only door to TRL."""

from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.trainer import KDTrainer
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.self_distill.trainer import SelfDistillSFTTrainer


__all__ = ["KDConfig", "KDTrainer", "SelfDistillSFTConfig", "SelfDistillSFTTrainer"]
