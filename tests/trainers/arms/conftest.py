import pytest

from trl_prune.checkpoints import dense_root
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS


@pytest.fixture(scope="package")
def pruned(dense, tmp_path_factory):
    """The folder of the dense model with two of its four blocks."""
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return folder
