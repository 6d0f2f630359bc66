"""Short training runs of `KDTrainer` and what they log."""

import json
import os
import subprocess
import sys
from pathlib import Path

from datasets import Dataset
from torch import Tensor

from tests.conftest import ROWS
from tests.trainers.configs import config
from trl_prune import KDTrainer


EVERY_STATE = ["embedding", "block", "mlp", "attention"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def train(
    student: Path,
    tmp_path: Path,
    rows: list[dict] = ROWS,
    peft_config: object = None,
    teacher: object = None,
    **changes: object,
) -> KDTrainer:
    """Return a trainer after its training."""
    trainer = KDTrainer(
        str(student),
        config(tmp_path, **changes),
        train_dataset=Dataset.from_list(rows),
        peft_config=peft_config,
        teacher_model=teacher,
    )
    trainer.train()
    return trainer


def logged(trainer: object, *names: str) -> list[tuple[float, ...]]:
    """Return values of each logging step."""
    return [tuple(entry[name] for name in names) for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer: KDTrainer) -> dict[str, Tensor]:
    """Return a copy of the student's state dict."""
    return {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}


def run_processes(script: str, processes: int, folder: Path, *arguments: str) -> object:
    """Run a script in processes of torchrun, and return the JSON that it writes to its first argument."""
    worker, output = folder / "worker.py", folder / f"{processes}.json"
    worker.write_text(script)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [*TORCHRUN, f"--nproc_per_node={processes}", str(worker), str(output), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(output.read_text())
