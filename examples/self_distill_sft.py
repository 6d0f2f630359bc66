"""Self-data distillation in a script of your own: change SFTTrainer's name and nothing else.

usage: python examples/self_distill_sft.py PRUNED_MODEL rows.jsonl
"""

import sys

from datasets import load_dataset

from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer


def main(model: str, rows: str) -> None:
    """Let the dense model behind a pruned one rewrite the rows, then train the pruned one on them."""
    trainer = SelfDistillSFTTrainer(
        model=model,  # its trl_prune.json names the dense model that writes
        args=SelfDistillSFTConfig("out", max_steps=10, report_to="none", rewrite_max_new_tokens=96),
        train_dataset=load_dataset("json", data_files=rows, split="train"),
    )
    print("accepted", trainer.acceptance["by_type"]["all"]["acceptance_rate"])
    trainer.train()
    trainer.save_model("out/final")


if __name__ == "__main__":
    main(*sys.argv[1:])
