"""Let the dense model rewrite instructions with open answers, in this process, with vLLM or on a server; then train.

usage: python examples/self_distill_alpaca.py PRUNED_MODEL [--rows FILE] [--engine vllm] [--url http://localhost:8000/v1]

FILE has JSON Lines of {"instruction", "input", "output"}; by default Alpaca from the Hub. The server, such as
`vllm serve`, must serve the dense model; nothing but its tokenizer is loaded here while it writes.
"""

import argparse

import torch
from datasets import Dataset, load_dataset

from trl_prune import SelfDistillSFTConfig, SelfDistillSFTTrainer


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
    """Rewrite and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows")
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--url", help="OpenAI-compatible server with the dense model")
    parser.add_argument("--output", default="out-alpaca")
    options = parser.parse_args()
    trainer = SelfDistillSFTTrainer(
        model=options.model,
        args=SelfDistillSFTConfig(
            options.output,
            learning_rate=1e-4,
            num_train_epochs=1,
            per_device_train_batch_size=4,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            rewrite_engine="server" if options.url else options.engine,
            rewrite_engine_kwargs={"url": options.url, "concurrency": 32} if options.url else None,
            rewrite_answer_type="open",  # kept unless it contradicts the reference; `general` is the paper's rule
        ),
        train_dataset=rows(options.rows),
    )
    print(trainer.acceptance["by_type"]["open"])
    trainer.train()
    trainer.save_model(options.output)


if __name__ == "__main__":
    main()
