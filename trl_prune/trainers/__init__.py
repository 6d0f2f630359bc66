"""Learning: TRL's trainers with more in them. The only door to TRL."""

from trl_prune.trainers.kd_config import KDConfig
from trl_prune.trainers.kd_trainer import KDTrainer
from trl_prune.trainers.self_distill_sft_config import SelfDistillSFTConfig
from trl_prune.trainers.self_distill_sft_trainer import SelfDistillSFTTrainer


__all__ = ["KDConfig", "KDTrainer", "SelfDistillSFTConfig", "SelfDistillSFTTrainer"]
