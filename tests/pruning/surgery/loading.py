"""Load pruned checkpoints strictly, and inputs to run them on."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


ROOT = {"path": "dense", "commit": None, "config_hash": None}
TOKENS = torch.arange(40).reshape(2, 20) % 250


def load_strictly(folder: Path) -> torch.nn.Module:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()
