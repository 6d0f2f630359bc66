"""A pruned checkpoint equals the dense model with those blocks skipped (exactly) or those units masked."""

import json

import pytest
import torch
from transformers import AutoConfig

from tests.conftest import save_tiny, tiny_config
from tests.families import family_axis_params, family_params
from tests.pruning.masking import masked
from tests.pruning.surgery.loading import ROOT, TOKENS, load_strictly
from trl_prune.checkpoints import load_config
from trl_prune.errors import InputError
from trl_prune.pruning.families import (
    EXPERTS,
    FAMILIES,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    NEURONS,
    derived_rows,
    family_of,
)
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.keep import Keep, axis_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut, meta_model


@pytest.mark.parametrize("family", family_params())
@torch.inference_mode()
def test_pruned_equals_dense_with_blocks_skipped(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    dense, pruned = load_strictly(dense_dir), load_strictly(tmp_path / "pruned")
    with layers_skipped(dense, [1, 2]):
        skipped_logits = dense(TOKENS, use_cache=False).logits
    assert torch.equal(pruned(TOKENS, use_cache=False).logits, skipped_logits)
    assert not torch.allclose(skipped_logits, dense(TOKENS, use_cache=False).logits)


@pytest.mark.parametrize("family", family_params())
@torch.inference_mode()
def test_pruned_generates_the_same_with_and_without_cache(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    sizes = axis_sizes(load_config(dense_dir), FAMILIES[family])
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2, 3]} | plan_of(family, "all", sizes), ROOT)
    model = load_strictly(tmp_path / "pruned")
    cached, uncached = (
        model.generate(TOKENS[:, :8], max_new_tokens=12, min_new_tokens=12, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert torch.equal(cached, uncached)


def plan_of(family: str, axis: str, sizes: dict[str, int]) -> Keep:
    """Return a plan with different units in each layer; axes that must be cut together are."""
    grouped = KV_HEADS in sizes
    plans: Keep = {
        HIDDEN: [index for index in range(32) if index % 4 in (0, 3)],
        NEURONS: [[1, 2, 5, 7, 11, 40], [0, 3, 4, 9, 13, 47], [2, 3, 5, 8, 13, 21], [1, 4, 9, 16, 25, 36]],
        HEADS: [[0, 2], [1, 3], [1, 2], [0, 3]] if grouped else [[0, 1], [1, 3], [2, 3], [0, 3]],
        KV_HEADS: [[0], [1], [1], [0]],
        EXPERTS: [[0, 2], [1, 2], [0, 3], [2, 3]],
    }
    if axis == "all":
        # Half of the heads of every KV group; removing groups is a separate case.
        return {name: plans[name] for name in FAMILIES[family].axes - {LAYERS, KV_HEADS}}
    tied = not FAMILIES[family].reads_head_dim and axis in (HIDDEN, HEADS, KV_HEADS)
    return (
        {axis: plans[axis]}
        | ({HIDDEN: plans[HIDDEN]} if tied else {})
        | ({HEADS: plans[HEADS]} if tied and axis == HIDDEN else {})
    )


@pytest.mark.parametrize(("family", "axis"), family_axis_params())
@torch.inference_mode()
def test_pruned_equals_dense_with_units_masked(family, axis, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    dense = load_strictly(dense_dir)
    keep = plan_of(family, axis, axis_sizes(dense.config, FAMILIES[family]))
    prune_checkpoint(dense_dir, tmp_path / "pruned", keep, ROOT)
    pruned = load_strictly(tmp_path / "pruned")
    with masked(dense, Cut.of(dense.config, keep).keep):
        masked_logits = dense(TOKENS, use_cache=False).logits
    logits = pruned(TOKENS, use_cache=False).logits
    torch.testing.assert_close(logits, masked_logits, atol=3e-5, rtol=1e-4)
    assert not torch.allclose(masked_logits, dense(TOKENS, use_cache=False).logits, atol=1e-3)
    on_meta = meta_model(dense.config, keep)
    assert sum(weight.numel() for weight in on_meta.parameters()) == pruned.num_parameters()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "qwen2", "smollm3"])
def test_per_layer_config_lists_are_sliced_with_their_blocks(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [1, 3]}, ROOT)
    dense, pruned = (load_strictly(folder).config for folder in (dense_dir, tmp_path / "pruned"))
    for key in family_of(family).per_layer_keys:
        entries = getattr(dense, key)
        assert getattr(pruned, key) == [entries[1], entries[3]]


def test_meta_model_has_the_size_of_the_written_model(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2]}, ROOT)
    written = sum(weight.numel() for weight in load_strictly(tmp_path / "pruned").parameters())
    config = load_strictly(dense_dir).config
    assert sum(weight.numel() for weight in meta_model(config, {LAYERS: [0, 2]}).parameters()) == written


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes"])
def test_quantised_checkpoints_can_be_cut_in_depth_only(method, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    config = json.loads((dense_dir / "config.json").read_text())
    skipped = ["lm_head", "model.layers.1.mlp.up_proj", "model.layers.3.mlp.up_proj"]
    quantised = config | {"quantization_config": {"quant_method": method, "modules_to_not_convert": skipped}}
    (dense_dir / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(InputError, match="quantised.*hidden_size cannot"):
        prune_checkpoint(dense_dir, tmp_path / "narrow", {HIDDEN: [0, 1, 2, 3]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "shallow", {LAYERS: [0, 3]}, ROOT)
    quantisation = json.loads((tmp_path / "shallow" / "config.json").read_text())["quantization_config"]
    assert quantisation["modules_to_not_convert"] == ["lm_head", "model.layers.1.mlp.up_proj"]


def test_a_tensor_without_an_entry_in_the_row_raises():
    cut = Cut.of(tiny_config("llama"), {HIDDEN: [0, 1, 2, 3]})
    with pytest.raises(InputError, match="has no entry for the tensor 'model.layers.0.adapter.weight'"):
        cut.kept_indices("model.layers.0.adapter.weight", (2, 2))


def test_dense_blocks_of_qwen_moe_stay_dense(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", "qwen3_moe")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [1, 2, 3]}, ROOT)
    config = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert (config["mlp_only_layers"], config["decoder_sparse_step"]) == ([1], 1)


def cut_of(model_type, keep, **sizes):
    config = AutoConfig.for_model(model_type, **sizes)
    return Cut(config, derived_rows()[model_type], keep)


def test_a_mixer_stays_as_wide_while_hidden_channels_go():
    sizes = {"hidden_size": 32, "expand": 3, "num_heads": 12, "head_dim": 8, "num_hidden_layers": 1}
    assert cut_of("mamba2", {LAYERS: [0], HIDDEN: list(range(16))}, **sizes).config_changes()["expand"] == 6
    with pytest.raises(InputError, match="keeps 20 channels, but mamba2 has a mixer of 96, expand times .* 16, 24"):
        cut_of("mamba2", {LAYERS: [0], HIDDEN: list(range(20))}, **sizes).config_changes()


def test_logits_of_minicpm_are_divided_by_the_same():
    sizes = {"hidden_size": 32, "dim_model_base": 8, "num_hidden_layers": 1, "num_attention_heads": 4}
    cut = cut_of("minicpm3", {LAYERS: [0], HIDDEN: list(range(16))}, **sizes)
    assert cut.config_changes()["dim_model_base"] == 4
    with pytest.raises(InputError, match="keeps 18 of 32 channels, and dim_model_base, 8, .*: multiples of 4"):
        cut_of("minicpm3", {LAYERS: [0], HIDDEN: list(range(18))}, **sizes).config_changes()


def test_keys_that_all_heads_share_stay():
    keep = {LAYERS: [0], HIDDEN: list(range(16)), HEADS: [[1, 3]]}
    cut = cut_of("falcon", keep, hidden_size=32, num_attention_heads=4, num_hidden_layers=1)
    rows = cut.kept_indices("transformer.h.0.self_attention.query_key_value.weight", (48, 32))[0]
    assert rows.tolist() == [*range(8, 16), *range(24, 48)]
