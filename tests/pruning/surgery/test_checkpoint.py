"""Pruned checkpoint folders: shards, companion files, provenance, and nothing left after an error."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import rewrite_tensors, save_tiny
from tests.pruning.surgery.loading import ROOT, TOKENS, load_strictly
from trl_prune.checkpoints import INDEX, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import FAMILIES, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
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


def test_tensors_that_the_model_does_not_use_are_left_out(tmp_path):
    """Also where the plan cuts width, and the family's row has no entry for them."""
    dense_dir = save_tiny(tmp_path / "dense")
    prune_checkpoint(dense_dir, tmp_path / "expected", {LAYERS: [0, 3], HIDDEN: list(range(16))}, ROOT)
    extra = {"v_head.summary.weight": torch.ones(1, 32), "model.layers.3.self_attn.v_scale": torch.ones(())}
    rewrite_tensors(dense_dir, lambda tensors: tensors.update(extra))
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3], HIDDEN: list(range(16))}, ROOT)
    expected, pruned = (load_file(tmp_path / name / "model.safetensors") for name in ("expected", "pruned"))
    assert expected.keys() == pruned.keys()
    assert all(torch.equal(tensor, pruned[name]) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("lm_head.weight"), "dense lacks lm_head.weight"),
        (lambda tensors: tensors["model.norm.weight"].fill_(float("nan")), "dense: the weight model.norm.weight has"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}),
            r"is \(31,\) in the files of .*dense and",
        ),
    ],
)
def test_a_source_that_is_not_whole_is_named_and_nothing_is_left(tmp_path, change, message):
    dense_dir = save_tiny(tmp_path / "dense")
    rewrite_tensors(dense_dir, change)
    with pytest.raises(InputError, match=message) as caught:
        prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    assert ".part" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dense"]


def test_a_weight_that_is_no_number_in_a_removed_block_does_no_harm(tmp_path):
    dense_dir = save_tiny(tmp_path / "dense")
    rewrite_tensors(dense_dir, lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].fill_(float("inf")))
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 2, 3]}, ROOT)
    assert load_strictly(tmp_path / "pruned")(TOKENS).logits.isfinite().all()


@pytest.mark.parametrize(
    ("named", "written"),
    [(None, "LlamaForCausalLM"), ([], "LlamaForCausalLM"), (["LlamaModel"], "LlamaForCausalLM"), (["Mine"], "Mine")],
)
def test_the_config_names_a_class_with_a_head(tmp_path, named, written):
    """Trainers load the class that it names; one that transformers does not know is somebody else's."""
    dense_dir = save_tiny(tmp_path / "dense")
    config = json.loads((dense_dir / "config.json").read_text()) | {"architectures": named}
    (dense_dir / "config.json").write_text(json.dumps(config))
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["architectures"] == [written]


def test_a_config_with_infinity_keeps_it(tmp_path):
    """As those of state-space models, whose time steps have no limit."""
    dense_dir = save_tiny(tmp_path / "dense")
    config = json.loads((dense_dir / "config.json").read_text()) | {"time_step_limit": [0.0, float("inf")]}
    (dense_dir / "config.json").write_text(json.dumps(config))
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3]}, ROOT)
    assert json.loads((tmp_path / "pruned" / "config.json").read_text())["time_step_limit"] == [0.0, float("inf")]


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + index / 8 for index in range(4)],
    "long_factor": [2.0 + index for index in range(4)],
    "original_max_position_embeddings": 16,
    "partial_rotary_factor": 1.0,
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [("phi3", {"rope_parameters": LONGROPE}), ("phi", {"qk_layernorm": True})],
    ids=["phi3 with longrope", "phi with norms of queries"],
)
def test_heads_and_channels_of_models_that_tie_them_are_cut_together(tmp_path, family, changes):
    """Phi-3 checks its factors, and Phi sizes its norms, by hidden_size / num_attention_heads, not by head_dim."""
    dense_dir = save_tiny(tmp_path / "dense", family, **changes)
    for plan in ({HIDDEN: list(range(16))}, {KV_HEADS: [[0]] * 4}, {HEADS: [[0, 2]] * 4}):
        with pytest.raises(InputError, match="heads and hidden channels can only be cut together"):
            prune_checkpoint(dense_dir, tmp_path / "refused", plan, ROOT)
    plan = {LAYERS: [0, 3], HIDDEN: list(range(16)), KV_HEADS: [[1]] * 4, NEURONS: [list(range(20))] * 4}
    prune_checkpoint(dense_dir, tmp_path / "pruned", plan, ROOT)
    pruned = load_strictly(tmp_path / "pruned")
    assert pruned(TOKENS).logits.isfinite().all()
    if family == "phi3":
        assert pruned.config.rope_parameters["long_factor"] == LONGROPE["long_factor"]


def test_projected_embeddings_are_cut_in_depth_and_neurons_alone(tmp_path):
    """As OPT-350m's, whose norms come after its blocks' parts."""
    changes = {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    dense_dir = save_tiny(tmp_path / "dense", "opt", **changes)
    for axis in (HIDDEN, HEADS):
        plan = {axis: list(range(16)) if axis == HIDDEN else [[0, 1]] * 4}
        with pytest.raises(InputError, match=f"opt cannot be cut along {axis}: its embeddings have 16 channels"):
            prune_checkpoint(dense_dir, tmp_path / "refused", plan, ROOT)
    prune_checkpoint(dense_dir, tmp_path / "pruned", {LAYERS: [0, 3], NEURONS: [list(range(20))] * 4}, ROOT)
    assert load_strictly(tmp_path / "pruned").model.decoder.project_in.weight.shape == (32, 16)
