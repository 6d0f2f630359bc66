"""What travels with a checkpoint, and what does not."""

import os

import pytest

from trl_prune.checkpoints import changed_companions, copy_companions
from trl_prune.errors import InputError


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def copied(source, target):
    copy_companions(source, target)
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}


def test_companions_leave_weights_and_config(copy, target):
    (copy / "pytorch_model.bin").write_bytes(b"x")
    (copy / "pytorch_model.bin.index.json").write_text("{}")
    names = copied(copy, target)
    assert {"tokenizer.json", "LICENSE", "generation_config.json"} <= names
    assert not {"config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"} & names


@pytest.mark.parametrize(
    "name",
    [
        "rust_model.ot",
        "model.tflite",
        "tf_model.h5",
        "events.out.tfevents.17.host.1.0",
        "trainer_state.json",
        "a.onnx_data",
    ],
)
def test_other_weights_and_what_a_training_left_stay_behind(copy, target, name):
    (copy / name).write_bytes(b"x")
    assert name not in copied(copy, target)


def test_folders_of_tokenizer_and_processor_travel_and_others_do_not(copy, target):
    for name in (
        "additional_chat_templates/rag.jinja",
        "qformer_tokenizer/tokenizer.json",
        "qformer_tokenizer/vocab.txt",
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("x")
    for name in ("onnx/config.json", "onnx/tokenizer.json", "runs/x.json", "checkpoint-5/trainer_state.json"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("x")
    (copy / "checkpoint-5" / "tokenizer.json").write_text("x")
    names = {name for name in copied(copy, target) if "/" in name}
    assert names == {
        "additional_chat_templates/rag.jinja",
        "qformer_tokenizer/tokenizer.json",
        "qformer_tokenizer/vocab.txt",
    }


def test_lost_and_changed_companions_are_found(copy, target):
    copy_companions(copy, target)
    assert changed_companions(copy, target) == []
    (target / "LICENSE").unlink()
    (target / "tokenizer.json").write_text("{}")
    (target / "generation_config.json").write_text("{}")  # which a training may mend
    assert changed_companions(copy, target) == ["LICENSE", "tokenizer.json"]


def test_a_link_to_a_file_of_this_machine_is_not_copied(copy, target, tmp_path):
    (tmp_path / "id_rsa").write_text("a secret")
    (copy / "notes.txt").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(InputError, match="notes.txt is a link to .*id_rsa, which is no file of a checkpoint"):
        copy_companions(copy, target)
    (copy / "notes.txt").unlink()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.jinja").write_text("a secret")
    (copy / "additional_chat_templates").symlink_to(tmp_path / "secrets")
    with pytest.raises(InputError, match="is a link to"):
        copy_companions(copy, target)


def test_links_of_the_hubs_cache_and_to_another_checkpoint_are_usual(dense, target, tmp_path):
    linked = tmp_path / "snapshots" / "commit"
    blobs = tmp_path / "blobs"
    linked.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text("{}")
    (linked / "tokenizer_config.json").symlink_to(os.path.relpath(blobs / "abc", linked))
    (linked / "LICENSE").symlink_to(dense / "LICENSE")
    assert copied(linked, target) == {"tokenizer_config.json", "LICENSE"}
