"""A tiny dense checkpoint, its model in float64 and texts to fit repairs on."""

from pathlib import Path

import pytest
import torch

from tests.conftest import save_tiny, tiny_model
from tests.pruning.surgery.loading import ROOT, load_strictly
from trl_prune.checkpoints import load_config
from trl_prune.pruning.repairs import build_repairs
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut


def texts(rows: int = 8, length: int = 40) -> list[dict[str, torch.Tensor]]:
    """Return two batches of random tokens, the second padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 250, (2, rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :, length // 2 :] = 0
    return [{"input_ids": ids[batch], "attention_mask": mask[batch]} for batch in range(2)]


class RepairCase:
    """A tiny dense checkpoint with its model in float64 and calibration texts, to cut and repair."""

    def __init__(self, folder: Path, family: str = "llama", **changes: object):
        self.folder = folder
        self.dense_dir = save_tiny(folder / "dense", family, **changes)
        self.model = tiny_model(family, **changes).double()
        self.calibration = Calibration(lambda: self.model, texts(), folder / "fits")

    def cut(self, keep: dict) -> Cut:
        return Cut.of(load_config(self.dense_dir), keep)

    def repairs(self, keep: dict, requested: dict) -> list:
        return build_repairs(requested, self.dense_dir, self.cut(keep), self.calibration)

    def pruned(self, keep: dict, requested: dict, name: str = "pruned") -> torch.nn.Module:
        prune_checkpoint(self.dense_dir, self.folder / name, keep, ROOT, self.repairs(keep, requested))
        return load_strictly(self.folder / name)


@pytest.fixture
def repair_case(tmp_path):
    return lambda family="llama", **changes: RepairCase(tmp_path, family, **changes)
