"""FSDP2 on two CPU processes: sharded models have the gradient of full ones on one process.

Accelerate 1.15 supports FSDP on accelerators only, so torch's own `fully_shard` is applied to the trainer's models.
Only GPUs can test the rest: accelerate's wrapping, NCCL, shards in mixed precision, saving from shards.
"""

import os
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import save_tiny
from tests.trainers.kd.training import TORCHRUN
from trl_prune.checkpoints import dense_root
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint


WORKER = """
import os, sys
import torch
from datasets import Dataset
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from tests.conftest import ROWS
from trl_prune import KDConfig, KDTrainer

student, teacher, output = sys.argv[1:4]
rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
args = KDConfig(
    output + "-run", per_device_train_batch_size=4 // ranks, report_to="none", use_cpu=True, bf16=False,
    gradient_checkpointing=False, hidden_loss=["embedding", "block", "attention"], layer_map="origins",
    hidden_weight=0.5, ce_weight=0.3,
)
trainer = KDTrainer(student, args, train_dataset=Dataset.from_list(ROWS), teacher_model=teacher)
if ranks > 1:
    for model in (trainer.model, trainer.teacher.model):
        for block in model.model.layers:
            fully_shard(block)
        fully_shard(model if model is trainer.model else model.model)
    assert all(isinstance(weight, DTensor) for weight in trainer.model.parameters())
    assert isinstance(trainer.teacher.model.model.norm.weight, DTensor)
trainer.model.train()
rows = [trainer.train_dataset[row] for row in range(4)]
count = (trainer.data_collator(rows)["labels"][:, 1:] != -100).sum()
loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows[rank::ranks]), num_items_in_batch=count)
loss.backward()
gradients = {name: weight.grad for name, weight in trainer.model.named_parameters()}
gradients = {name: gradient.full_tensor() if ranks > 1 else gradient for name, gradient in gradients.items()}
if rank == 0:
    save_file({name: gradient.contiguous() for name, gradient in gradients.items()}, output)
"""


def gradients(folder: Path, processes: int) -> dict:
    worker, output = folder / "worker.py", folder / f"{processes}.safetensors"
    worker.write_text(WORKER)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    arguments = [str(worker), str(folder / "pruned"), str(folder / "dense"), str(output)]
    command = [*TORCHRUN, f"--nproc_per_node={processes}", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return load_file(output)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_sharded_models_have_the_gradient_of_full_ones(tied, tmp_path):
    dense = save_tiny(tmp_path / "dense", tie_word_embeddings=tied)
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 1, 3]}, dense_root(dense, str(dense)))
    full, sharded = gradients(tmp_path, 1), gradients(tmp_path, 2)
    assert full.keys() == sharded.keys()
    for name, gradient in full.items():
        assert (sharded[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name
