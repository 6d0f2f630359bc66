"""Trainer configs for tests: three steps on the CPU."""

from pathlib import Path

from trl import SFTConfig

from trl_prune import KDConfig


def config(tmp_path: Path, cls: type[SFTConfig] = KDConfig, **changes: object) -> SFTConfig:
    """Return arguments for three steps on the CPU."""
    arguments = {
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return cls(str(tmp_path / "out"), **(arguments | changes))
