"""Recover a pruned model on word problems that its dense model solves in its own words, with LoRA.

usage: python examples/self_distill_gsm8k.py PRUNED_MODEL [ROWS] [OUTPUT]
       accelerate launch --num_processes 2 examples/self_distill_gsm8k.py PRUNED_MODEL

ROWS is a JSON Lines file of {"question", "answer"}, whose answers end in `#### number`; by default GSM8K from the Hub.
Each process generates its share of the answers, and the run resumes where it was interrupted.
"""

import sys

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig

from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer


def rows(path: str | None) -> Dataset:
    """Return the problems in TRL's conversational format."""
    problems = (
        load_dataset("json", data_files=path, split="train") if path else load_dataset("openai/gsm8k", "main")["train"]
    )

    def as_conversation(problem: dict) -> dict:
        return {
            "prompt": [{"role": "user", "content": problem["question"]}],
            "completion": [{"role": "assistant", "content": problem["answer"].replace("####", "The answer is")}],
            "answer": problem["answer"].split("####")[-1].strip(),
        }

    return problems.map(as_conversation, remove_columns=problems.column_names)


def main(model: str, path: str | None = None, output: str = "out-gsm8k") -> None:
    """Let the dense model write the solutions, keep those with the right answer and right steps, and train."""
    trainer = SelfDistillSFTTrainer(
        model=model,  # its trl_prune.json names the dense model that writes
        args=SelfDistillSFTConfig(
            output,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            num_train_epochs=1,
            per_device_train_batch_size=4,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            rewrite_answer_type="math",
            rewrite_max_new_tokens=256,
        ),
        train_dataset=rows(path),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
    )
    if trainer.is_world_process_zero():
        print(trainer.acceptance["by_type"]["math"])
    trainer.train()
    trainer.save_model(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
