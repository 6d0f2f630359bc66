"""Prune a dense Hugging Face causal LM, recover its quality, and measure the recovered quality."""

from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from trl_prune.api import (
        cache_teacher,
        compare,
        evaluate,
        measure_speculative,
        merge,
        prune,
        report,
        rewrite_dataset,
        run,
        score,
        search,
        select_recovery_data,
    )
    from trl_prune.trainers import (
        KDConfig,
        KDTrainer,
        LocalKDConfig,
        LocalKDTrainer,
        SelfDistillSFTConfig,
        SelfDistillSFTTrainer,
    )

__all__ = [
    "KDConfig",
    "KDTrainer",
    "LocalKDConfig",
    "LocalKDTrainer",
    "SelfDistillSFTConfig",
    "SelfDistillSFTTrainer",
    "cache_teacher",
    "compare",
    "evaluate",
    "measure_speculative",
    "merge",
    "prune",
    "report",
    "rewrite_dataset",
    "run",
    "score",
    "search",
    "select_recovery_data",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: torch and TRL take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'trl_prune' has no attribute {name!r}")
    home = "trl_prune.trainers" if name.endswith(("Config", "Trainer")) else "trl_prune.api"
    return getattr(import_module(home), name)
