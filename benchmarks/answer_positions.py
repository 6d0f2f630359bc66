"""A training step on a CPU with the LM head on answers only, against TRL's on all positions.

usage: python benchmarks/answer_positions.py
"""

import subprocess
import sys
import tempfile
import time

from datasets import Dataset
from trl import SFTTrainer

from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer
from trl_prune.data.starter import starter_rows
from trl_prune.smollm2 import smollm2


STEPS = 4
CLASSES = {"SFTTrainer": SFTTrainer, "SelfDistillSFTTrainer": SelfDistillSFTTrainer}


def measure(name):
    """Print the CPU seconds of the steps after the first, and the first step's loss."""
    args = SelfDistillSFTConfig(
        tempfile.mkdtemp(),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        rewrite=False,
        model_init_kwargs={"attn_implementation": "eager"},
    )
    trainer = CLASSES[name](str(smollm2()), args, train_dataset=Dataset.from_list(starter_rows()[:40]))
    step, marks = trainer.training_step, []

    def timed(*given, **named):
        start = time.process_time()
        told = step(*given, **named)
        marks.append(time.process_time() - start)
        return told

    trainer.training_step = timed
    trainer.train()
    print(f"{sum(marks[1:]) / len(marks[1:]):.2f} {trainer.state.log_history[0]['loss']}")


def main():
    """Measure both trainers, each in a process of its own, and print the table."""
    rows = {}
    for name in CLASSES:
        told = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        rows[name] = told.stdout.split()[-2:]
    print("| trainer | CPU seconds a step | x | first loss |\n|---|---|---|---|")
    for name, (seconds, loss) in rows.items():
        print(f"| {name} | {seconds} | {float(seconds) / float(rows['SFTTrainer'][0]):.2f} | {loss} |")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) == 2 else main()
