"""Choose a tenth of an instruction set for a pruned model, save it as a dataset, and train on it.

usage: python examples/select_alpaca.py DENSE PRUNED [--rows FILE] [--embedder hidden_states] [--no-training]

FILE has JSON Lines of {"instruction", "input", "output"}; by default Alpaca from the Hub. The embedder is a
sentence-transformers model (`pip install "trl-prune[select]"`), or `hidden_states` for the dense model's own.
"""

import argparse

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from trl_prune import select_recovery_data


def rows(path: str | None) -> Dataset:
    """Return the instructions in TRL's conversational format."""
    hub = "yahma/alpaca-cleaned"
    instructions = load_dataset("json", data_files=path, split="train") if path else load_dataset(hub, split="train")

    def as_conversation(row: dict) -> dict:
        prompt = "\n\n".join(filter(None, [row["instruction"], row["input"]]))
        return {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        }

    return instructions.map(as_conversation, remove_columns=instructions.column_names)


def main() -> None:
    """Select and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dense")
    parser.add_argument("pruned")
    parser.add_argument("--rows")
    parser.add_argument("--budget", type=float, default=0.1, help="share of the rows")
    parser.add_argument("--embedder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--output", default="out-select")
    parser.add_argument("--no-training", action="store_true")
    options = parser.parse_args()
    chosen = select_recovery_data(
        options.dense,
        options.pruned,
        rows(options.rows),
        options.budget,
        embedder=options.embedder,
        cache_dir=f"{options.output}/measured",  # a second call with another budget or method measures nothing again
    )
    chosen.to_parquet(f"{options.output}/rows.parquet")
    print(f"{len(chosen)} rows in {options.output}/rows.parquet")
    if options.no_training:
        return
    trainer = SFTTrainer(
        model=options.pruned,
        args=SFTConfig(
            f"{options.output}/model",
            learning_rate=1e-4,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=chosen,
        peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear"),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
