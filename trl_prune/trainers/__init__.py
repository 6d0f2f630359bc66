"""Trainers on top of TRL's SFTTrainer; the only package that imports trl."""

from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.trainer import KDTrainer
from trl_prune.trainers.local_kd.config import LocalKDConfig
from trl_prune.trainers.local_kd.trainer import LocalKDTrainer
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.self_distill.trainer import SelfDistillSFTTrainer


__all__ = ["KDConfig", "KDTrainer", "LocalKDConfig", "LocalKDTrainer", "SelfDistillSFTConfig", "SelfDistillSFTTrainer"]
