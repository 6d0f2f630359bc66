"""What the prune stage allows with a warning, and what it refuses before any work."""

import logging

import pytest
from transformers import AutoModelForCausalLM

from tests.conftest import tiny_tokenizer
from tests.recipes import recipe
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model


def saved_as(model_type, folder):
    tiny_model(tiny_config(model_type)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def pruning(folder, model, **prune):
    return recipe(folder, model=model, prune=prune, recover={}, rewrite=None)


def test_a_hybrid_may_lose_all_attention_with_a_warning(tmp_path, caplog):
    model = saved_as("nemotron_h", tmp_path / "hybrid")  # whose block 2 is the only one with attention
    with caplog.at_level(logging.WARNING, logger="trl_prune"):
        run = run_recipe(pruning(tmp_path, model, keep={"num_hidden_layers": [0, 1, 3]}), ["prune"])
    assert "no block with attention is left" in caplog.text
    AutoModelForCausalLM.from_pretrained(run.folder.output("prune", "model"))
    caplog.clear()
    other = pruning(tmp_path, model, keep={"num_hidden_layers": [0, 2, 3]})
    assert "no block with attention" not in list(plan(other, ["prune"]))[-1]


def test_text_only_of_a_text_model_is_refused_before_any_work(tmp_path):
    model = saved_as("llama", tmp_path / "text")
    with pytest.raises(InputError, match="prune.text_only: a llama model is text only already"):
        run_recipe(pruning(tmp_path, model, target={"layers": 3}, text_only=True), ["prune"])
    assert not (tmp_path / "run" / "prune").exists()


def test_a_budget_of_a_text_tower_counts_the_text_tower(tmp_path):
    model = saved_as("gemma3", tmp_path / "multimodal")
    cut = {"target": {"share": 0.8}, "text_only": True, "repairs": {}}
    run = run_recipe(pruning(tmp_path, model, **cut), ["prune"])
    text = AutoModelForCausalLM.from_pretrained(run.folder.output("prune", "model"))
    counted = run.folder.result("prune").metrics["pruned"]["parameters"]
    assert sum(weight.numel() for weight in text.parameters()) == counted
