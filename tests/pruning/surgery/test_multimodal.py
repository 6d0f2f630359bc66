"""Checkpoints with a vision tower: the text tower is cut in place, the rest stays."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.pruning.surgery.loading import ROOT
from trl_prune.pruning.deriving.masking import units_masked
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.families import LAYERS, NEURONS
from trl_prune.pruning.importance.scores import score
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut


@pytest.fixture
def dense_dir(tmp_path):
    config = tiny_config("gemma3", image_token_index=7, mm_tokens_per_image=4)
    model = tiny_model(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zero at first
    model.save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "preprocessor_config.json").write_text('{"image_processor_type": "Gemma3ImageProcessor"}')
    return tmp_path / "dense"


def load(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    return model.eval()


def with_image():
    ids = torch.tensor([[3, 20, 7, 7, 7, 7, 30, 31, 32]])  # four tokens stand for an image
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand((1, 3, 28, 28), generator=generator)
    return {"input_ids": ids, "pixel_values": pixels, "token_type_ids": (ids == 7).long(), "use_cache": False}


@torch.inference_mode()
def test_image_and_text_give_what_the_dense_model_without_its_blocks_gives(dense_dir, tmp_path):
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2, 3, 5]}, ROOT)
    dense, pruned = load(dense_dir), load(tmp_path / "pruned")
    assert type(pruned) is type(dense)
    with layers_skipped(dense, [1, 4]):
        skipped = dense(**with_image()).logits
    assert torch.equal(pruned(**with_image()).logits, skipped)
    blank = with_image() | {"pixel_values": torch.zeros(1, 3, 28, 28)}
    assert not torch.equal(pruned(**blank).logits, skipped)


@torch.inference_mode()
def test_image_and_text_give_what_the_dense_model_without_its_neurons_gives(dense_dir, tmp_path):
    keep = {NEURONS: [[neuron + layer for neuron in range(0, 40, 2)] for layer in range(6)]}
    prune_checkpoint(dense_dir, tmp_path / "pruned", keep, ROOT)
    dense, pruned = load(dense_dir), load(tmp_path / "pruned")
    with units_masked(dense, Cut.of(dense.config, keep), NEURONS):
        masked = dense(**with_image()).logits
    torch.testing.assert_close(pruned(**with_image()).logits, masked, atol=3e-5, rtol=1e-4)


def test_the_vision_tower_and_the_processor_stay_as_they_are(dense_dir, tmp_path):
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 5]}, ROOT)
    dense, pruned = (load_file(folder / "model.safetensors") for folder in (dense_dir, tmp_path / "pruned"))
    towers = [name for name in dense if not name.startswith("language_model.")]
    assert towers
    assert all(torch.equal(dense[name], pruned[name]) for name in towers)
    assert (tmp_path / "pruned" / "preprocessor_config.json").is_file()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (dense_dir, tmp_path / "pruned"))
    assert before["vision_config"] == after["vision_config"]
    assert after["text_config"]["num_hidden_layers"] == len(after["text_config"]["layer_types"]) == 2


def test_blocks_of_the_text_tower_are_scored_on_text(dense_dir):
    ids = torch.arange(24).reshape(2, 12) + 8
    scores = score(load(dense_dir), [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    assert scores.layers.block_influence().shape == (6,)
    assert scores.neurons().shape == (6, 48)
