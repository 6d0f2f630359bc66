"""Cuts in depth that a config cannot express are refused, with the cuts that would do."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import save_tiny, tiny_config
from tests.pruning.surgery.loading import ROOT, load_strictly
from trl_prune.errors import InputError
from trl_prune.pruning.deriving.tiny import tiny_config as tiny_config_of
from trl_prune.pruning.deriving.tiny import tiny_model
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.depth import check_depth


def test_attention_scaled_by_the_block_index_can_lose_its_last_blocks_only():
    config = tiny_config("gpt2", scale_attn_by_inverse_layer_idx=True)
    check_depth(config, {LAYERS: [0, 1]})
    with pytest.raises(InputError, match="divides the attention of a block by its index, and block 2"):
        check_depth(config, {LAYERS: [0, 2]})


def test_a_pattern_that_repeats_names_the_runs_that_can_be_removed():
    config = tiny_config_of("jamba")  # every other block has attention
    check_depth(config, {LAYERS: [0, 1, 4, 5]})
    with pytest.raises(InputError, match=r"jamba cannot lose the blocks 0: .*runs of 1 that can be removed: 5"):
        check_depth(config, {LAYERS: [1, 2, 3, 4, 5]})


def test_blocks_whose_keys_others_use_are_not_removed_without_them():
    config = tiny_config_of("gemma3n_text")  # blocks 4 and 5 use the keys of blocks 2 and 3
    check_depth(config, {LAYERS: [1, 2, 3, 4, 5]})
    with pytest.raises(InputError, match="blocks 4 use the keys and values of block 2: keep it, or remove them too"):
        check_depth(config, {LAYERS: [0, 1, 3, 4, 5]})


def test_token_indices_come_from_the_same_block():
    config = tiny_config_of("glm_moe_dsa", indexer_types=["full", "shared", "full", "shared", "full", "full"])
    check_depth(config, {LAYERS: [0, 1, 4]})
    with pytest.raises(InputError, match="block 3 uses the token indices of block 2"):
        check_depth(config, {LAYERS: [0, 1, 3, 4]})


def test_a_config_that_transformers_refuses_says_why():
    config = tiny_config_of("olmo_hybrid")
    with pytest.raises(InputError, match="transformers allows no olmo_hybrid like this: .*at least one"):
        check_depth(config, {LAYERS: [1, 3, 5]})


def test_heads_for_multi_token_prediction_are_left_out(tmp_path):
    dense = save_tiny(tmp_path / "dense", tie_word_embeddings=True)
    tensors = load_file(dense / "model.safetensors")
    last = {name: tensor.clone() for name, tensor in tensors.items() if "layers.3" in name}
    extra = {name.replace("layers.3", "layers.4"): tensor for name, tensor in last.items()}
    save_file(tensors | extra, dense / "model.safetensors", metadata={"format": "pt"})
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    load_strictly(tmp_path / "pruned")


@torch.inference_mode()
def test_a_pattern_in_an_older_form_does_not_stay_beside_the_list(tmp_path):
    """Nemotron-H's checkpoints give the kinds of blocks as letters."""
    config = tiny_config_of("nemotron_h")
    tiny_model(config).save_pretrained(tmp_path / "dense")
    stored = json.loads((tmp_path / "dense" / "config.json").read_text())
    del stored["layers_block_type"]
    (tmp_path / "dense" / "config.json").write_text(json.dumps(stored | {"hybrid_override_pattern": "ME*-ME"}))
    prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", {LAYERS: [0, 2, 5]}, ROOT)
    kinds = load_strictly(tmp_path / "pruned").config.layers_block_type
    assert kinds == [config.layers_block_type[layer] for layer in (0, 2, 5)]
