"""Recover a pruned model by distillation from its dense teacher, as an SFT script with the class name changed.

usage: python examples/kd_trainer.py STUDENT rows.jsonl OUTPUT [TEACHER]

The teacher of a student pruned by trl-prune is found by its trl_prune.json; any other student needs TEACHER.
"""

import sys

import torch
from datasets import load_dataset

from trl_prune import KDConfig, KDTrainer


def main(student: str, rows: str, output: str, teacher: str | None = None) -> None:
    """Train on the teacher's distribution over the answers, and save."""
    trainer = KDTrainer(
        model=student,
        args=KDConfig(
            output,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            per_device_train_batch_size=4,
            num_train_epochs=1,
            logging_steps=2,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=load_dataset("json", data_files=rows, split="train"),
        teacher_model=teacher,
    )
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
