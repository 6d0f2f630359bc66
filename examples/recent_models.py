"""Prune, distil and run three kinds of models of today, with random weights in real proportions.

usage: python examples/recent_models.py {gemma3,qwen3_5_moe,nemotron_h} OUTPUT

Each is a published model made narrower: Gemma 3 with its vision tower (4B), Qwen3.5's mixture with linear attention
(35B-A3B) and the hybrid Nemotron-H (8B). With a real checkpoint, begin at `score`.
"""

import sys
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from trl_prune import KDConfig, KDTrainer, prune, score
from trl_prune.smollm2 import smollm2


ROWS = str(Path(__file__).parent / "rows.jsonl")
VOCABULARY = 49152  # of SmolLM2, whose tokenizer stands for theirs
CONFIGS: dict[str, dict] = {
    "gemma3": {
        "text_config": {
            "vocab_size": VOCABULARY, "hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 18,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "query_pre_attn_scalar": 64,
            "sliding_window": 1024, "max_position_embeddings": 8192,
        },
        "vision_config": {
            "hidden_size": 288, "intermediate_size": 1076, "num_hidden_layers": 13, "num_attention_heads": 4,
            "image_size": 224, "patch_size": 14,
        },
        "mm_tokens_per_image": 64, "image_token_index": 4, "boi_token_index": 5, "eoi_token_index": 6,
    },
    "qwen3_5_moe": {
        "vocab_size": VOCABULARY, "hidden_size": 256, "num_hidden_layers": 16, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 64, "num_experts": 64, "num_experts_per_tok": 8,
        "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "linear_num_key_heads": 4,
        "linear_num_value_heads": 8, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
        "max_position_embeddings": 8192,
    },
    "nemotron_h": {
        "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 2688, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 64, "mamba_num_heads": 16, "mamba_head_dim": 64, "n_groups": 2,
        "ssm_state_size": 32, "max_position_embeddings": 8192,
        "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    },
}  # fmt: skip
TYPES = {"qwen3_5_moe": "qwen3_5_moe_text"}
CLASSES = {"gemma3": AutoModelForImageTextToText}
SIZES = {
    "gemma3": {"num_hidden_layers": 15, "intermediate_size": 2048},
    "qwen3_5_moe": {"num_experts": 32, "num_hidden_layers": 12},
    "nemotron_h": {"num_hidden_layers": 48, "intermediate_size": 2048},
}


def main(name: str, output: str) -> None:
    """Write the dense model, prune it, distil a few steps, load the result and generate."""
    dense, pruned, recovered = (f"{output}/{part}" for part in ("dense", "pruned", "recovered"))
    write_dense(name, dense)
    scores = score(dense, ROWS, samples=8)
    prune(dense, pruned, sizes=SIZES[name], scores=scores)
    args = KDConfig(
        recovered, max_steps=4, per_device_train_batch_size=2, learning_rate=1e-4, logging_steps=1, report_to="none",
        save_strategy="no", use_cpu=not torch.cuda.is_available(), bf16=False,
    )  # fmt: skip
    rows = load_dataset("json", data_files=ROWS, split="train")
    # The tokenizer alone, because the rows are text: by default TRL loads a multimodal model's processor of images.
    tokenizer = AutoTokenizer.from_pretrained(pruned)
    trainer = KDTrainer(model=pruned, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(recovered)
    model = CLASSES.get(name, AutoModelForCausalLM).from_pretrained(recovered)
    tokens = tokenizer("What is 2 plus 3?", return_tensors="pt").to(model.device)
    answer = model.generate(**tokens, max_new_tokens=8, do_sample=False)
    sizes = {path: sum(file.stat().st_size for file in Path(path).glob("*.safetensors")) for path in (dense, pruned)}
    print(f"{type(model).__name__}: {sizes[dense] / 1e6:,.0f} MB, pruned {sizes[pruned] / 1e6:,.0f} MB")
    print(f"answers with {answer.shape[1] - tokens['input_ids'].shape[1]} tokens")


def write_dense(name: str, folder: str) -> None:
    """Write a model with random weights, and a tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2())
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 2}
    config = AutoConfig.for_model(TYPES.get(name, name), **CONFIGS[name])
    for key, value in ids.items():
        setattr(config.get_text_config(), key, value)
    torch.manual_seed(0)
    model = CLASSES.get(name, AutoModelForCausalLM).from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
