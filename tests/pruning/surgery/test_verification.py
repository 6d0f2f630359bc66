"""A pruned checkpoint is written only if it loads, and its logits are the dense model's without the blocks."""

import pytest

from tests.conftest import rewrite_tensors, save_tiny
from trl_prune.checkpoints import DamagedCheckpointError
from trl_prune.pruning.families import HIDDEN, LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.verification import verify_logits


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def test_no_folder_remains_if_verification_fails(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("trl_prune.pruning.surgery.cut.Cut.config_changes", lambda _: {})
    with pytest.raises(DamagedCheckpointError):
        prune_checkpoint(folder, tmp_path / "pruned", {LAYERS: [0]}, {"path": "dense"})
    assert not (tmp_path / "pruned").exists()


def test_logits_equal_those_of_the_dense_model_without_its_blocks(folder, tmp_path):
    keep = {LAYERS: [0, 3]}
    prune_checkpoint(folder, tmp_path / "pruned", keep, {"path": "dense"})
    verify_logits(folder, tmp_path / "pruned", keep)
    rewrite_tensors(tmp_path / "pruned", lambda tensors: tensors["model.layers.1.mlp.up_proj.weight"].mul_(1.01))
    with pytest.raises(DamagedCheckpointError, match="differs"):
        verify_logits(folder, tmp_path / "pruned", keep)


def test_logits_that_are_not_finite_raise(folder, tmp_path):
    keep = {HIDDEN: list(range(16))}
    prune_checkpoint(folder, tmp_path / "pruned", keep, {"path": "dense"})
    verify_logits(folder, tmp_path / "pruned", keep)
    rewrite_tensors(tmp_path / "pruned", lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DamagedCheckpointError, match="not finite"):
        verify_logits(folder, tmp_path / "pruned", keep)
