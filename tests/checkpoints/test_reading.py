import json

import pytest

from trl_prune.checkpoints import (
    INDEX,
    check_weights,
    locate,
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


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_index_with_shards_outside_the_folder(sharded, shard):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = shard
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="own folder"):
        check_weights(sharded)


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
