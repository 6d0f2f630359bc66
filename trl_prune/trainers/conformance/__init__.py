"""Checks of a distillation trainer's gradient from outside, for any `Trainer` (docs/kd_conformance.md)."""

from trl_prune.trainers.conformance.case import Case
from trl_prune.trainers.conformance.checks import CHECKS, ConformanceError
from trl_prune.trainers.conformance.processes import check_processes


__all__ = ["CHECKS", "Case", "ConformanceError", "check_processes"]
