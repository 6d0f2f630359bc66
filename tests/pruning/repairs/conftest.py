"""A dense model in float64 with texts to fit on."""

from pathlib import Path

import pytest
import torch

from tests.conftest import save_tiny, tiny_model
from tests.pruning.surgery.test_checkpoint import ROOT, load_strictly
from trl_prune.checkpoints import load_config
from trl_prune.pruning.repairs import repairs_for
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut


def texts(rows: int = 8, length: int = 40) -> list[dict[str, torch.Tensor]]:
    """Return two batches of random tokens, the second one padded."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 250, (2, rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :, length // 2 :] = 0
    return [{"input_ids": ids[batch], "attention_mask": mask[batch]} for batch in range(2)]


class Patient:
    """A tiny checkpoint, and what it takes to cut and repair it."""

    def __init__(self, folder: Path, family: str = "llama", **changes: object):
        self.folder = folder
        self.dense_dir = save_tiny(folder / "dense", family, **changes)
        self.model = tiny_model(family, **changes).double()
        self.calibration = Calibration(lambda: self.model, texts(), folder / "scratch")

    def cut(self, keep: dict) -> Cut:
        return Cut.of(load_config(self.dense_dir), keep)

    def repairs(self, keep: dict, wanted: dict) -> list:
        return repairs_for(wanted, self.dense_dir, self.cut(keep), self.calibration)

    def pruned(self, keep: dict, wanted: dict, name: str = "pruned") -> torch.nn.Module:
        prune_checkpoint(self.dense_dir, self.folder / name, keep, ROOT, self.repairs(keep, wanted))
        return load_strictly(self.folder / name)


@pytest.fixture
def patient(tmp_path):
    return lambda family="llama", **changes: Patient(tmp_path, family, **changes)
