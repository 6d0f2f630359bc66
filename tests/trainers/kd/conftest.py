"""A depth-pruned student."""

from pathlib import Path

import pytest

from trl_prune.checkpoints import dense_root
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


@pytest.fixture(scope="session")
def pruned(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dense model without its third block, shared and only read."""
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 1, 3]}, dense_root(dense, str(dense)))
    return folder
