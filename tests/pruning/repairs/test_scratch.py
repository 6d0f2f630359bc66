"""Fits on disk."""

import pytest
import torch

from trl_prune.pruning.repairs.scratch import Scratch


def test_saved_fits_are_found_by_the_same_settings_only(tmp_path):
    first, other = Scratch(tmp_path / "fits", {"ridge": 1}), Scratch(tmp_path / "fits", {"ridge": 2})
    first.save("layer.weight", {"weight": torch.arange(4.0)})
    assert "layer.weight" in first
    assert "layer.weight" not in other
    assert torch.equal(Scratch(tmp_path / "fits", {"ridge": 1}).load("layer.weight", "weight"), torch.arange(4.0))


def test_a_write_broken_off_leaves_no_fit(tmp_path, monkeypatch):
    def full(_, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trl_prune.pruning.repairs.scratch.save_file", full)
    scratch = Scratch(tmp_path, {})
    with pytest.raises(OSError, match="No space"):
        scratch.save("layer.weight", {"weight": torch.zeros(1)})
    assert "layer.weight" not in scratch
