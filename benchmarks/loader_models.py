"""The checkpoints that `loaders.py` has read: a tiny random model of a family, cut in every way."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from trl_prune import prune
from trl_prune.checkpoints import load_config, read_provenance
from trl_prune.data.starter import starter_rows
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.sizes.shapes import complete_sizes, first_units
from trl_prune.recipe import parse_recipe


FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2")
SIZES = {LAYERS: 4, HIDDEN: 128, NEURONS: 192, HEADS: 8, KV_HEADS: 4, "head_dim": 16}
# Rows of the table, and the sizes that they keep.
CUTS = {
    "depth": {LAYERS: 3},
    "neurons": {NEURONS: 128},
    "heads": {HEADS: 4, KV_HEADS: 2},
    "hidden": {HIDDEN: 96},
    "hidden and heads": {HIDDEN: 96, HEADS: 6, KV_HEADS: 3},
}
DENSE, REPAIRED, TRAINED = "dense", "depth and neurons, repaired", "the same, trained"
ROWS = (DENSE, *CUTS, REPAIRED, TRAINED)
# What a family's config has besides; Qwen2's has no head_dim of its own.
EXTRAS = {"gemma2": {"sliding_window": 8, "tie_word_embeddings": True}, "mistral": {"sliding_window": None}}
OWN_HEAD_DIM = {"llama", "mistral", "qwen3", "gemma2"}
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' }}{% generation %}{{ message.content }}{% endgeneration %}"
    "{{ eos_token }}{% endfor %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=TEMPLATE, **specials)


def write_dense(family: str, folder: Path) -> Path:
    """Write a random model of a family and return its folder."""
    words = tokenizer()
    ids = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = SIZES | {"vocab_size": len(words), "max_position_embeddings": 512, "tie_word_embeddings": False}
    if family not in OWN_HEAD_DIM:
        del sizes["head_dim"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(sizes | ids | EXTRAS.get(family, {}))))
    with torch.no_grad():  # larger weights, so that each block decides about the next token
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(4)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def write_models(family: str, folder: Path, cuts: Sequence[str] = ROWS) -> dict[str, Path]:
    """Write the dense model of a family and cuts of it, and return their folders by the rows of the table."""
    dense = write_dense(family, folder / DENSE)
    costs = Costs.of(load_config(dense))
    found = {DENSE: dense}
    for name in [name for name in CUTS if name in cuts]:
        keep = first_units(complete_sizes(CUTS[name], costs), costs)
        found[name] = prune(dense, folder / re.sub(r"\W", "_", name), keep=keep)
    if {REPAIRED, TRAINED} & set(cuts):
        finished = run_recipe(parse_recipe(_recipe(dense, folder), "the recipe"), ["recover"])
        found |= {REPAIRED: finished.model_dir("pruned"), TRAINED: finished.model_dir("sft")}
    return {name: found[name] for name in ROWS if name in cuts}


def _recipe(dense: Path, folder: Path) -> dict:
    """Return a recipe that cuts, repairs, and trains an adapter for a step."""
    rows = folder / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in starter_rows()[:8]))
    args = {"max_steps": 1, "per_device_train_batch_size": 2, "max_length": 128, "learning_rate": 1e-3, "bf16": False}
    return {
        "model": str(dense),
        "dataset": {"path": str(rows)},
        "output": str(folder / "run"),
        "dtype": "float32",
        "score": {"samples": 8, "batch_size": 4},
        "prune": {"target": {"layers": 3, NEURONS: 128}},
        "recover": {"sft": {"data": "references", "peft": {"r": 2}, "args": args | {"use_cpu": True}}},
    }


def repairs_of(folder: Path) -> list[str]:
    """Return the names of the repairs that a pruned model had."""
    return sorted({edit["repair"] for edit in read_provenance(folder).edits})
