"""Oracles: a pruned checkpoint is the dense model with those blocks skipped, exactly."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import save_tiny
from tests.pruning.masking import masked
from trl_prune.checkpoints import INDEX, load_config, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, FAMILIES, GROUPS, HEADS, HIDDEN, LAYERS, NEURONS, family_of
from trl_prune.pruning.importance.layers import layers_skipped
from trl_prune.pruning.keep import Keep, axis_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut, meta_model


ROOT = {"path": "dense", "commit": None, "config_hash": None}
TOKENS = torch.arange(40).reshape(2, 20) % 250


def load_strictly(folder: Path) -> torch.nn.Module:
    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.inference_mode()
def test_pruned_equals_dense_with_blocks_skipped(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    dense, pruned = load_strictly(dense_dir), load_strictly(tmp_path / "pruned")
    with layers_skipped(dense, [1, 2]):
        wanted = dense(TOKENS, use_cache=False).logits
    assert torch.equal(pruned(TOKENS, use_cache=False).logits, wanted)
    assert not torch.allclose(wanted, dense(TOKENS, use_cache=False).logits)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.inference_mode()
def test_pruned_generates_with_cache_as_without(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    sizes = axis_sizes(load_config(dense_dir), FAMILIES[family])
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2, 3]} | plan_of(family, "all", sizes), ROOT)
    model = load_strictly(tmp_path / "pruned")
    told = [
        model.generate(TOKENS[:, :8], max_new_tokens=12, min_new_tokens=12, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*told)


def width_plans() -> list[tuple[str, str]]:
    """Every family with every axis it can be cut along, and with all of them."""
    return [
        (family, axis) for family, row in sorted(FAMILIES.items()) for axis in (*sorted(row.axes - {LAYERS}), "all")
    ]


def plan_of(family: str, axis: str, sizes: dict[str, int]) -> Keep:
    """Return an uneven plan: other units in each layer; tied axes go together."""
    grouped = GROUPS in sizes
    plans: Keep = {
        HIDDEN: [index for index in range(32) if index % 4 in (0, 3)],
        NEURONS: [[1, 2, 5, 7, 11, 40], [0, 3, 4, 9, 13, 47], [2, 3, 5, 8, 13, 21], [1, 4, 9, 16, 25, 36]],
        HEADS: [[0, 2], [1, 3], [1, 2], [0, 3]] if grouped else [[0, 1], [1, 3], [2, 3], [0, 3]],
        GROUPS: [[0], [1], [1], [0]],
        EXPERTS: [[0, 2], [1, 2], [0, 3], [2, 3]],
    }
    if axis == "all":
        # Half of the heads of every group; a group's removal has its own case.
        return {name: plans[name] for name in FAMILIES[family].axes - {LAYERS, GROUPS}}
    tied = not FAMILIES[family].head_dim_free and axis in (HIDDEN, HEADS, GROUPS)
    return (
        {axis: plans[axis]}
        | ({HIDDEN: plans[HIDDEN]} if tied else {})
        | ({HEADS: plans[HEADS]} if tied and axis == HIDDEN else {})
    )


@pytest.mark.parametrize(("family", "axis"), width_plans())
@torch.inference_mode()
def test_pruned_equals_dense_with_units_masked(family, axis, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    dense = load_strictly(dense_dir)
    keep = plan_of(family, axis, axis_sizes(dense.config, FAMILIES[family]))
    prune_checkpoint(dense_dir, tmp_path / "pruned", keep, ROOT)
    pruned = load_strictly(tmp_path / "pruned")
    with masked(dense, Cut.of(dense.config, keep).keep):
        wanted = dense(TOKENS, use_cache=False).logits
    told = pruned(TOKENS, use_cache=False).logits
    torch.testing.assert_close(told, wanted, atol=3e-5, rtol=1e-4)
    assert not torch.allclose(wanted, dense(TOKENS, use_cache=False).logits, atol=1e-3)
    counted = meta_model(dense.config, keep)
    assert sum(weight.numel() for weight in counted.parameters()) == pruned.num_parameters()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "qwen2", "smollm3"])
def test_per_layer_lists_follow_their_blocks(family, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [1, 3]}, ROOT)
    dense, pruned = (load_strictly(folder).config for folder in (dense_dir, tmp_path / "pruned"))
    for key in family_of(family).per_layer:
        entries = getattr(dense, key)
        assert getattr(pruned, key) == [entries[1], entries[3]]


def test_sharded_equals_whole(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "whole", {LAYERS: [0, 2]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "sharded", {LAYERS: [0, 2]}, ROOT, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "sharded" / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 2
    whole, sharded = load_strictly(tmp_path / "whole"), load_strictly(tmp_path / "sharded")
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in whole.state_dict().values()) - (
        whole.lm_head.weight.nbytes if whole.config.tie_word_embeddings else 0
    )
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, sharded.state_dict()[name])


def test_companions_and_provenance_come_along(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    (dense_dir / "README.md").write_text("of the dense model")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 1, 3]}, ROOT)
    names = {path.name for path in (tmp_path / "pruned").iterdir()}
    assert {"LICENSE", "tokenizer.json", "generation_config.json", "chat_template.jinja"} <= names
    assert "README.md" not in names
    provenance = read_provenance(tmp_path / "pruned")
    assert provenance.dense == ROOT
    assert provenance.keep == {LAYERS: [0, 1, 3]}
    assert provenance.edits == []


def test_a_cut_of_a_cut_counts_in_the_dense_model(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "first", {LAYERS: [0, 2, 3]}, ROOT)
    prune_checkpoint(tmp_path / "first", tmp_path / "second", {LAYERS: [0, 2]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "direct", {LAYERS: [0, 3]}, ROOT)
    assert read_provenance(tmp_path / "second").keep == {LAYERS: [0, 3]}
    second, direct = (load_file(tmp_path / name / "model.safetensors") for name in ("second", "direct"))
    assert second.keys() == direct.keys()
    assert all(torch.equal(second[name], direct[name]) for name in direct)


def test_refusal_leaves_nothing(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    with pytest.raises(InputError):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [9]}, ROOT)
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    dense_dir = save_tiny(tmp_path / "dense")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trl_prune.pruning.surgery.shards.save_file", full)
    with pytest.raises(OSError, match="No space"):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_meta_model_counts_what_is_written(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2]}, ROOT)
    written = sum(weight.numel() for weight in load_strictly(tmp_path / "pruned").parameters())
    config = load_strictly(dense_dir).config
    assert sum(weight.numel() for weight in meta_model(config, {LAYERS: [0, 2]}).parameters()) == written


@pytest.mark.parametrize("family", ["gpt2", "opt"])
@torch.inference_mode()
def test_checkpoints_saved_from_the_bare_backbone(family, tmp_path):
    """As GPT-2's on the hub: no `transformer.` in front of its tensors."""
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "whole", {LAYERS: [0, 3]}, ROOT)
    backbone = FAMILIES[family].blocks.split(".")[0] + "."
    tensors = load_file(dense_dir / "model.safetensors")
    bare = {name.removeprefix(backbone): tensor for name, tensor in tensors.items() if name.startswith(backbone)}
    save_file(bare, dense_dir / "model.safetensors", metadata={"format": "pt"})
    prune_checkpoint(dense_dir, tmp_path / "bare", {LAYERS: [0, 3]}, ROOT)
    told = [load_strictly(tmp_path / name)(TOKENS, use_cache=False).logits for name in ("bare", "whole")]
    assert torch.equal(*told)


def test_blocks_under_another_name_are_refused(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    tensors = load_file(dense_dir / "model.safetensors")
    renamed = {name.replace("model.layers", "model.blocks"): tensor for name, tensor in tensors.items()}
    save_file(renamed, dense_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="blocks of other names under 'model.layers'; its config says 4"):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)


def test_safetensors_mode_lets_others_read(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)
    assert (tmp_path / "pruned" / "model.safetensors").stat().st_mode & 0o044
    shutil.rmtree(tmp_path / "pruned")


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes"])
def test_quantised_checkpoints_are_cut_in_depth_only(method, tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    config = json.loads((dense_dir / "config.json").read_text())
    skipped = ["lm_head", "model.layers.1.mlp.up_proj", "model.layers.3.mlp.up_proj"]
    quantised = config | {"quantization_config": {"quant_method": method, "modules_to_not_convert": skipped}}
    (dense_dir / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(InputError, match="quantised.*hidden_size cannot"):
        prune_checkpoint(dense_dir, tmp_path / "narrow", {HIDDEN: [0, 1, 2, 3]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "shallow", {LAYERS: [0, 3]}, ROOT)
    told = json.loads((tmp_path / "shallow" / "config.json").read_text())["quantization_config"]
    assert told["modules_to_not_convert"] == ["lm_head", "model.layers.1.mlp.up_proj"]


def test_a_tensor_the_row_does_not_know_is_refused(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    tensors = load_file(dense_dir / "model.safetensors") | {"model.layers.0.adapter.weight": torch.zeros(2, 2)}
    save_file(tensors, dense_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="says nothing about the tensor 'model.layers.0.adapter.weight'"):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {HIDDEN: [0, 1, 2, 3]}, ROOT)


def test_qwen_moe_keeps_its_dense_blocks_dense(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense", "qwen3_moe")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [1, 2, 3]}, ROOT)
    told = json.loads((tmp_path / "pruned" / "config.json").read_text())
    assert (told["mlp_only_layers"], told["decoder_sparse_step"]) == ([1], 1)
