"""Fitted tensors on disk."""

import pytest
import torch

from trl_prune.pruning.repairs.fit_cache import FitCache


def test_fits_are_found_with_the_same_settings_only(tmp_path):
    first, second = FitCache(tmp_path / "fits", {"ridge": 1}), FitCache(tmp_path / "fits", {"ridge": 2})
    first.save("layer.weight", {"weight": torch.arange(4.0)})
    assert "layer.weight" in first
    assert "layer.weight" not in second
    assert torch.equal(FitCache(tmp_path / "fits", {"ridge": 1}).load("layer.weight", "weight"), torch.arange(4.0))


def test_an_interrupted_write_leaves_no_fit(tmp_path, monkeypatch):
    def full(_, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trl_prune.pruning.repairs.fit_cache.save_file", full)
    fits = FitCache(tmp_path, {})
    with pytest.raises(OSError, match="No space"):
        fits.save("layer.weight", {"weight": torch.zeros(1)})
    assert "layer.weight" not in fits
