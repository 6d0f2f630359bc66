"""A training step on a CPU with the LM head on answer positions only, compared to TRL's on all positions.

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
TRAINERS = {"SFTTrainer": SFTTrainer, "SelfDistillSFTTrainer": SelfDistillSFTTrainer}


def measure(name):
    """Print the mean CPU seconds of the steps after the first, and the first step's loss."""
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
    trainer = TRAINERS[name](str(smollm2()), args, train_dataset=Dataset.from_list(starter_rows()[:40]))
    training_step, seconds = trainer.training_step, []

    def timed_step(*args, **kwargs):
        start = time.process_time()
        loss = training_step(*args, **kwargs)
        seconds.append(time.process_time() - start)
        return loss

    trainer.training_step = timed_step
    trainer.train()
    print(f"{sum(seconds[1:]) / len(seconds[1:]):.2f} {trainer.state.log_history[0]['loss']}")


def main():
    """Measure both trainers, each in its own process, and print the table."""
    rows = {}
    for name in TRAINERS:
        completed = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        rows[name] = completed.stdout.split()[-2:]
    print("| trainer | CPU seconds a step | x | first loss |\n|---|---|---|---|")
    for name, (seconds, loss) in rows.items():
        print(f"| {name} | {seconds} | {float(seconds) / float(rows['SFTTrainer'][0]):.2f} | {loss} |")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) == 2 else main()
