"""The text tower of a multimodal checkpoint as a model of its own: the logits on text of the whole one."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from tests.conftest import tiny_tokenizer
from tests.pruning.surgery.loading import ROOT
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.families import LAYERS, NEURONS
from trl_prune.pruning.surgery import text_tower
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.text_tower import check_own_weights, text_config


TEXT_TOWERS = {
    "gemma3": "gemma3_text", "mistral3": "mistral", "qwen3_5": "qwen3_5_text", "llava": "llama", "internvl": "qwen2",
    "smolvlm": "llama", "idefics3": "llama", "gemma4": "gemma4_text", "aria": "aria_text",
}  # fmt: skip
TEXT = {"input_ids": torch.arange(9)[None] + 20, "use_cache": False}


def save(model_type, folder):
    model = tiny_model(tiny_config(model_type))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return model


@torch.inference_mode()
@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=() if name in ("gemma3", "mistral3") else pytest.mark.slow) for name in TEXT_TOWERS],
)
def test_the_text_tower_alone_gives_the_logits_of_the_whole_model(model_type, tmp_path):
    dense = save(model_type, tmp_path / "dense")
    prune_checkpoint(tmp_path / "dense", tmp_path / "text", {}, ROOT, text_only=True)
    text, info = AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype="float32", output_loading_info=True)
    assert not any(info.values())
    assert text.config.model_type == TEXT_TOWERS[model_type]
    expected = dense(**TEXT).logits
    torch.testing.assert_close(text.eval()(**TEXT).logits, expected, atol=1e-5, rtol=1e-5)
    of_text = {id(weight): weight for part in (dense.get_decoder(), dense.lm_head) for weight in part.parameters()}
    assert sum(weight.numel() for weight in text.parameters()) == sum(map(torch.numel, of_text.values()))


@torch.inference_mode()
def test_it_is_cut_as_the_whole_model_is(tmp_path):
    save("gemma3", tmp_path / "dense")
    keep = {LAYERS: [0, 2, 3, 5], NEURONS: [list(range(layer, layer + 24)) for layer in range(6)]}
    for name, text_only in (("whole", False), ("text", True)):
        prune_checkpoint(tmp_path / "dense", tmp_path / name, keep, ROOT, text_only=text_only)
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole", dtype=torch.float32).eval()
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.float32).eval()
    torch.testing.assert_close(text(**TEXT).logits, whole(**TEXT).logits, atol=1e-5, rtol=1e-5)
    provenance = read_provenance(tmp_path / "text")
    assert provenance.keep == keep
    assert provenance.edits == [{"edit": "text_only"}]


def test_files_of_processors_stay_behind(tmp_path):
    save("gemma3", tmp_path / "dense")
    prune_checkpoint(tmp_path / "dense", tmp_path / "text", {LAYERS: [0, 5]}, ROOT, text_only=True)
    names = {path.name for path in (tmp_path / "text").iterdir()}
    assert "tokenizer.json" in names
    assert "preprocessor_config.json" not in names
    assert json.loads((tmp_path / "text" / "config.json").read_text())["architectures"] == ["Gemma3ForCausalLM"]


def test_a_text_model_and_a_tower_without_a_class_are_refused():
    with pytest.raises(InputError, match="a llama model is text only already"):
        text_config(tiny_config("llama"))
    with pytest.raises(
        InputError, match="transformers has no causal LM for qwen3_vl_text, the text tower of qwen3_vl"
    ):
        text_config(tiny_config("qwen3_vl"))
    with pytest.raises(InputError, match="the text tower of cohere2_vision has other logits"):
        text_config(tiny_config("cohere2_vision"))


def test_a_head_that_another_tower_shares_is_refused(monkeypatch):
    config = tiny_config("gemma3")
    check_own_weights(config)
    model = text_tower.meta_model(config)
    model.all_tied_weights_keys["lm_head.weight"] = "model.vision_tower.embeddings.position_embedding.weight"
    monkeypatch.setattr(text_tower, "meta_model", lambda _: model)
    with pytest.raises(InputError, match=r"gemma3's text tower shares lm_head.weight with model.vision_tower"):
        check_own_weights(config)
