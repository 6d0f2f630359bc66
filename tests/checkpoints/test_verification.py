"""Damaged checkpoints are found by loading them with transformers and by running them."""

import json

import pytest
import torch

from tests.conftest import rewrite_tensors, save_tiny
from trl_prune.checkpoints import DamagedCheckpointError, verify_loads, verify_runs


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def test_a_correct_checkpoint_passes(folder):
    verify_loads(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
        lambda tensors: tensors.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(48, 32)}),
        lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(47, 32)}),
    ],
    ids=["missing", "unexpected", "another shape"],
)
def test_a_damaged_checkpoint_raises(folder, change):
    rewrite_tensors(folder, change)
    with pytest.raises(DamagedCheckpointError, match="does not load"):
        verify_loads(folder)


def test_a_config_that_does_not_match_raises(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(DamagedCheckpointError, match="missing_keys"):
        verify_loads(folder)


def test_a_checkpoint_that_gives_no_numbers_raises(folder):
    assert verify_runs(folder, "float32", tokens=5).shape == (1, 5, 259)
    rewrite_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(DamagedCheckpointError, match="not finite"):
        verify_runs(folder, "float32")
