import shutil

from tests.conftest import save_tiny
from trl_prune.checkpoints import (
    fingerprint,
)


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


def test_equal_checkpoints_have_equal_fingerprints(tmp_path):
    assert fingerprint(save_tiny(tmp_path / "a")) == fingerprint(save_tiny(tmp_path / "b"))
