"""Compare models with the dense one on the same items: tests, flips, what cannot be told, and a verdict."""

from trl_prune.evaluation.comparison.alignment import align
from trl_prune.evaluation.comparison.compared import ComparedModels
from trl_prune.evaluation.comparison.conditions import check_conditions
from trl_prune.evaluation.comparison.flips import Flip, flip_examples
from trl_prune.evaluation.comparison.models import Comparison, GroupComparison, TaskComparison, compare_models
from trl_prune.evaluation.comparison.silent_tasks import silent_tasks
from trl_prune.evaluation.comparison.verdict import verdict


__all__ = [
    "ComparedModels",
    "Comparison",
    "Flip",
    "GroupComparison",
    "TaskComparison",
    "align",
    "check_conditions",
    "compare_models",
    "flip_examples",
    "silent_tasks",
    "verdict",
]
