import json

import pytest
import torch
from safetensors import safe_open

from tests.conftest import tiny_model
from trl_prune.checkpoints import (
    INDEX,
    check_weights,
    locate,
    tensor_files,
)
from trl_prune.errors import InputError


def test_complete_checkpoints_pass(copy, sharded):
    check_weights(copy)
    check_weights(sharded)
    assert locate(str(copy)) == copy


def test_missing_shard(sharded):
    shard = sorted(sharded.glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"the shard .*{shard.name} is missing"):
        check_weights(sharded)


@pytest.mark.parametrize("harm", ["truncated", "garbage", "empty"])
def test_corrupt_shard(sharded, harm):
    shard = sorted(sharded.glob("model-*"))[1]
    whole = shard.read_bytes()
    shard.write_bytes({"truncated": whole[:-10], "garbage": b"\xff" * 100, "empty": b""}[harm])
    with pytest.raises(InputError, match=f"{shard.name} is corrupt"):
        check_weights(sharded)


def test_index_with_a_tensor_that_is_nowhere(sharded):
    index = json.loads((sharded / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"]["ghost"] = index["weight_map"][name]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="places ghost in"):
        check_weights(sharded)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "./../model.safetensors"]
)
def test_index_with_shards_outside_the_folder(sharded, shard):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = shard
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="own folder"):
        check_weights(sharded)


def test_an_index_may_name_files_of_the_folder_by_its_dot(sharded):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"] = {name: f"./{shard}" for name, shard in index["weight_map"].items()}
    files = tensor_files(sharded)
    (sharded / INDEX).write_text(json.dumps(index))
    assert tensor_files(locate(str(sharded))) == files


def test_tensors_of_a_shard_count_although_the_index_does_not_name_them(sharded):
    index, files = json.loads((sharded / INDEX).read_text()), tensor_files(sharded)
    del index["weight_map"]["model.norm.weight"]
    (sharded / INDEX).write_text(json.dumps(index))
    assert tensor_files(locate(str(sharded))) == files


def test_an_index_that_transformers_does_not_read_is_refused(sharded):
    index = json.loads((sharded / INDEX).read_text())
    del index["metadata"]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match=f"{INDEX} has no 'metadata'"):
        locate(str(sharded))


@pytest.mark.parametrize("name", ["model.safetensors", INDEX])
def test_a_link_to_weights_that_are_gone_is_named(copy, tmp_path, name):
    (copy / "model.safetensors").unlink()
    (copy / name).symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=f"{name} is a link to .*gone, which is missing"):
        locate(str(copy))


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_corrupt_index(sharded, text):
    (sharded / INDEX).write_text(text)
    with pytest.raises(InputError, match="is corrupt"):
        check_weights(sharded)


def test_pickled_weights_are_refused_with_the_solution(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights.*save_pretrained"):
        locate(str(copy))


def test_neither_folder_nor_hub_id(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="neither a folder here nor a hub id"):
        locate(str(tmp_path / "none"))
    with pytest.raises(InputError, match="'someone/model'.*hub cannot be reached"):
        locate("someone/model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no config.json"):
        locate(str(tmp_path / "empty"))


def test_a_single_file_counts_before_an_old_index(copy):
    """`save_pretrained` in shards and then in one file leaves the index behind; transformers does not look at it."""
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (copy / INDEX).write_text(json.dumps(index))
    assert set(tensor_files(locate(str(copy))).values()) == {copy / "model.safetensors"}


def test_a_folder_saved_over_in_one_file_is_read_as_transformers_loads_it(tmp_path):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    with torch.no_grad():
        model.model.norm.weight.fill_(2.0)
    model.save_pretrained(tmp_path)
    stale = json.loads((tmp_path / INDEX).read_text()) if (tmp_path / INDEX).is_file() else None
    if stale is None:  # newer versions of transformers clean up
        (tmp_path / INDEX).write_text('{"weight_map": {"model.norm.weight": "model-00001-of-00009.safetensors"}}')
    file = tensor_files(locate(str(tmp_path)))["model.norm.weight"]
    with safe_open(file, "pt") as weights:
        assert torch.equal(weights.get_tensor("model.norm.weight"), torch.full((32,), 2.0))


def test_the_file_that_the_config_names_counts_first(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "model.safetensors").rename(copy / "mine.safetensors")
    (copy / "config.json").write_text(json.dumps(config | {"transformers_weights": "mine.safetensors"}))
    assert set(tensor_files(copy).values()) == {copy / "mine.safetensors"}
    (copy / "config.json").write_text(json.dumps(config | {"transformers_weights": "../mine.safetensors"}))
    with pytest.raises(InputError, match="own folder"):
        tensor_files(copy)


def test_shards_without_an_index_are_refused_as_transformers_refuses_them(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(InputError, match=f"has shards .model-00001-of-.*no {INDEX}"):
        locate(str(sharded))


def test_weights_of_another_name_are_named(copy):
    (copy / "model.safetensors").rename(copy / "model.fp16.safetensors")
    with pytest.raises(InputError, match="weights in model.fp16.safetensors, which transformers does not look for"):
        locate(str(copy))


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.gguf", "is a GGUF file.*safetensors checkpoint"), ("model.safetensors", "is a file; wanted: the folder")],
)
def test_a_file_is_no_model(copy, name, message):
    (copy / name).touch()
    with pytest.raises(InputError, match=message):
        locate(str(copy / name))


def test_an_adapter_alone_is_to_be_merged(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    with pytest.raises(InputError, match="is an adapter of someone/base, not a model: merge it first"):
        locate(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        locate(str(tmp_path))


def test_a_model_with_an_adapter_beside_it_is_refused(copy):
    """transformers would add the adapter whenever it loads the folder, and surgery would not see it."""
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    with pytest.raises(InputError, match="holds a model and an adapter.*merge it first.*or move"):
        locate(str(copy))


@pytest.mark.parametrize("text", ["[" * 5000, '{"weight_map": ' + '{"a":' * 5000, '{"weight_map": {"a": ["b"]}}'])
def test_an_index_made_to_break_readers_is_one_sentence(sharded, text):
    (sharded / INDEX).write_text(text)
    with pytest.raises(InputError):
        check_weights(sharded)
