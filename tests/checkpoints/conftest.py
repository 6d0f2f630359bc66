"""Copies of tiny checkpoints that tests may damage."""

import shutil

import pytest

from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS


@pytest.fixture
def copy(dense, tmp_path):
    return shutil.copytree(dense, tmp_path / "model")


@pytest.fixture
def sharded(dense, tmp_path):
    prune_checkpoint(dense, tmp_path / "sharded", {LAYERS: [0, 1, 2, 3]}, {"path": None}, max_shard_bytes=20_000)
    return tmp_path / "sharded"
