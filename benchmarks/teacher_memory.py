"""Peak memory of SelfDistillSFTTrainer: a teacher by name, freed before the student is loaded, against both resident.

    python benchmarks/teacher_memory.py [--model MODEL]

MODEL is a checkpoint folder, by default SmolLM2-135M-Instruct. Each case is a process of its own that rewrites eight
rows and trains the student, which lacks a fifth of the blocks, for one step with LoRA, in float32. `training alone`
has no teacher, `rewriting alone` no student: the limit is the larger of the two.
"""

import argparse
import gc
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM

import trl_prune
from trl_prune.checkpoints import load_config
from trl_prune.smollm2 import smollm2


CASES = {
    "student": "training alone",
    "teacher": "rewriting alone",
    "by name": "trainer, teacher by name",
    "resident": "trainer, teacher and student in memory",
}
ROWS = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {2 * n}."} for n in range(8)]


def run_case(case: str, dense: str, pruned: str, output: str) -> None:
    """Run one case in this process and print its peak memory in MB."""
    rows, load = Dataset.from_list(ROWS), AutoModelForCausalLM.from_pretrained
    if case == "teacher":
        trl_prune.rewrite_dataset(load(dense, dtype="float32"), rows, output, max_new_tokens=32)
    else:
        resident = case == "resident"
        student = load(pruned, dtype="float32") if resident else pruned
        teacher = load(dense, dtype="float32") if resident else dense
        trainer = trl_prune.SelfDistillSFTTrainer(
            student,
            trl_prune.SelfDistillSFTConfig(
                output,
                rewrite=case != "student",
                rewrite_max_new_tokens=32,
                teacher_model_init_kwargs={"dtype": "float32"},
                model_init_kwargs=None if resident else {"dtype": "float32"},
                max_steps=1,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=rows,
            teacher_model=teacher,
            peft_config=LoraConfig(r=8, target_modules="all-linear"),
        )
        gc.collect()
        trainer.train()
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def main() -> None:
    """Run each case in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        run_case(*options.case)
        return
    dense = options.model or str(smollm2())
    with TemporaryDirectory() as folder:
        layers = load_config(Path(dense)).num_hidden_layers
        pruned = str(Path(folder) / "pruned")
        trl_prune.prune(dense, pruned, keep={"num_hidden_layers": list(range(layers - layers // 5))})
        print("| case | peak, MB |\n|---|---|")
        for index, (case, name) in enumerate(CASES.items()):
            command = [sys.executable, __file__, "--case", case, dense, pruned, str(Path(folder) / str(index))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"| {name} | {done.stdout.split('peak')[-1].strip()} |", flush=True)


if __name__ == "__main__":
    main()
