"""State that only training needs, in its own file of a checkpoint: the projection and the hidden weight."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from trl_prune.checkpoints import atomic_file
from trl_prune.errors import InputError
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.kd.projection import PROJECTION
from trl_prune.trainers.sharded import copy_full_tensor, full_parameters


STATE_FILE = "kd_state.safetensors"


def write_state(student: PreTrainedModel, weight: HiddenWeight, checkpoint: Path, should_save: bool) -> None:
    """Write the state into a checkpoint; every rank calls this, those with `should_save` write."""
    weight.update()
    tensors = {"hidden_weight": torch.tensor(weight.value, dtype=torch.float64)}
    projection = dict(student.named_children()).get(PROJECTION)
    if projection is not None:
        with full_parameters(projection.weight) as (projection_weight,):
            tensors["projection"] = projection_weight.detach().cpu().contiguous()
    if should_save:
        checkpoint.mkdir(parents=True, exist_ok=True)
        with atomic_file(checkpoint / STATE_FILE) as partial_path:
            save_file(tensors, partial_path)


def read_state(student: PreTrainedModel, weight: HiddenWeight, checkpoint: Path) -> None:
    """Restore the state of a checkpoint.

    Raises:
        InputError: the checkpoint has none.
    """
    path = checkpoint / STATE_FILE
    if not path.is_file():
        raise InputError(
            f"{checkpoint} has no {STATE_FILE}: it was not written by a KDTrainer that compares hidden states"
        )
    tensors = load_file(path)
    weight.resume(tensors["hidden_weight"].item())
    if "projection" in tensors:
        copy_full_tensor(tensors["projection"], getattr(student, PROJECTION).weight)
