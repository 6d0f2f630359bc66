"""Pruned checkpoint folders: shards, companion files, provenance, and nothing left after an error."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import save_tiny
from tests.pruning.surgery.loading import ROOT, TOKENS, load_strictly
from trl_prune.checkpoints import INDEX, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


def test_sharded_equals_unsharded(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "unsharded", {LAYERS: [0, 2]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "sharded", {LAYERS: [0, 2]}, ROOT, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "sharded" / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 2
    unsharded, sharded = load_strictly(tmp_path / "unsharded"), load_strictly(tmp_path / "sharded")
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in unsharded.state_dict().values()) - (
        unsharded.lm_head.weight.nbytes if unsharded.config.tie_word_embeddings else 0
    )
    for name, weight in unsharded.state_dict().items():
        assert torch.equal(weight, sharded.state_dict()[name])


def test_companion_files_are_copied_and_provenance_is_written(tmp_path):
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


def test_a_second_cut_is_recorded_with_dense_indices(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "first", {LAYERS: [0, 2, 3]}, ROOT)
    prune_checkpoint(tmp_path / "first", tmp_path / "second", {LAYERS: [0, 2]}, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "direct", {LAYERS: [0, 3]}, ROOT)
    assert read_provenance(tmp_path / "second").keep == {LAYERS: [0, 3]}
    second, direct = (load_file(tmp_path / name / "model.safetensors") for name in ("second", "direct"))
    assert second.keys() == direct.keys()
    assert all(torch.equal(second[name], direct[name]) for name in direct)


def test_the_config_keeps_the_keys_that_transformers_does_not_know(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    config = json.loads((dense_dir / "config.json").read_text()) | {"a_note": 1}
    (dense_dir / "config.json").write_text(json.dumps(config))
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2]}, ROOT)
    assert json.loads((tmp_path / "pruned" / "config.json").read_text()) == config | {LAYERS: 2}


def test_an_invalid_plan_leaves_no_files(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    with pytest.raises(InputError):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [9]}, ROOT)
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


def test_a_full_disk_leaves_no_files(tmp_path, monkeypatch):
    dense_dir = save_tiny(tmp_path / "dense")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trl_prune.pruning.surgery.shards.save_file", full)
    with pytest.raises(OSError, match="No space"):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)
    assert [path.name for path in tmp_path.iterdir()] == ["dense"]


@pytest.mark.parametrize("family", ["gpt2", "opt"])
@torch.inference_mode()
def test_checkpoints_saved_from_the_bare_backbone(family, tmp_path):
    """As GPT-2's on the hub, whose tensor names lack the prefix `transformer.`."""
    dense_dir = save_tiny(tmp_path / "dense", family)
    prune_checkpoint(dense_dir, tmp_path / "prefixed", {LAYERS: [0, 3]}, ROOT)
    backbone = FAMILIES[family].blocks_prefix.split(".")[0] + "."
    tensors = load_file(dense_dir / "model.safetensors")
    bare = {name.removeprefix(backbone): tensor for name, tensor in tensors.items() if name.startswith(backbone)}
    save_file(bare, dense_dir / "model.safetensors", metadata={"format": "pt"})
    prune_checkpoint(dense_dir, tmp_path / "bare", {LAYERS: [0, 3]}, ROOT)
    logits = [load_strictly(tmp_path / name)(TOKENS, use_cache=False).logits for name in ("bare", "prefixed")]
    assert torch.equal(*logits)


def test_blocks_under_another_prefix_raise(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    tensors = load_file(dense_dir / "model.safetensors")
    renamed = {name.replace("model.layers", "model.blocks"): tensor for name, tensor in tensors.items()}
    save_file(renamed, dense_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="no blocks under 'model.layers'; its config has 4"):
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)


def test_written_weights_are_readable_by_other_users(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0]}, ROOT)
    assert (tmp_path / "pruned" / "model.safetensors").stat().st_mode & 0o044
    shutil.rmtree(tmp_path / "pruned")
