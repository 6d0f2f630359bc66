import json
import shutil

import pytest

from tests.conftest import save_tiny
from trl_prune.checkpoints import (
    INDEX,
    PROVENANCE,
    Provenance,
    atomic_folder,
    check_weights,
    copy_companions,
    dense_root,
    fingerprint,
    locate,
    read_provenance,
    write_provenance,
)
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS


@pytest.fixture
def copy(dense, tmp_path):
    return shutil.copytree(dense, tmp_path / "model")


@pytest.fixture
def sharded(dense, tmp_path):
    prune_checkpoint(dense, tmp_path / "sharded", {LAYERS: [0, 1, 2, 3]}, {"path": None}, max_shard_bytes=20_000)
    return tmp_path / "sharded"


def test_whole_checkpoints_pass(copy, sharded):
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


def test_index_that_lies(sharded):
    index = json.loads((sharded / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"]["ghost"] = index["weight_map"][name]
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="places ghost in"):
        check_weights(sharded)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors"])
def test_index_that_leads_out_of_the_folder(sharded, shard):
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


def test_pickled_weights_are_refused_with_the_way_out(copy):
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


def test_fingerprint_follows_weights_and_config(dense, copy):
    before = fingerprint(copy)
    assert before == fingerprint(dense)
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    assert fingerprint(copy) != before
    shutil.copyfile(dense / "model.safetensors", copy / "model.safetensors")
    assert fingerprint(copy) == before
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert fingerprint(copy) != before


def test_provenance_round_trip_and_root(copy):
    assert read_provenance(copy) is None
    root = dense_root(copy, str(copy))
    assert root["path"] == str(copy.resolve())
    write_provenance(Provenance(root, "parent", {LAYERS: [0]}), copy)
    assert read_provenance(copy).dense == root
    assert dense_root(copy, "another name") == root
    (copy / PROVENANCE).write_text('{"x": 1}')
    with pytest.raises(InputError, match="not a provenance file"):
        read_provenance(copy)


def test_companions_leave_weights_and_config(copy, tmp_path):
    (copy / "pytorch_model.bin").write_bytes(b"x")
    (copy / "pytorch_model.bin.index.json").write_text("{}")
    target = tmp_path / "target"
    target.mkdir()
    copy_companions(copy, target)
    names = {path.name for path in target.iterdir()}
    assert {"tokenizer.json", "LICENSE", "generation_config.json"} <= names
    assert not {"config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"} & names


def test_atomic_folder_keeps_the_old_one_on_failure(tmp_path):
    target = tmp_path / "target"
    with atomic_folder(target) as part:
        (part / "a").write_text("old")

    def fail():
        with atomic_folder(target) as part:
            (part / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "a").read_text() == "old"
    with atomic_folder(target) as part:
        (part / "b").write_text("new")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_no_folder_is_made_for_a_tiny_model_twice(tmp_path):
    assert fingerprint(save_tiny(tmp_path / "a")) == fingerprint(save_tiny(tmp_path / "b"))
