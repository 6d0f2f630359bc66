"""What only training needs, in a file of its own beside the optimizer's: projection and hidden weight."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import atomic_file
from trl_prune.errors import InputError
from trl_prune.trainers.kd.hidden_term import PROJECTION
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.sharded import full_tensor


STATE = "kd_state.safetensors"


def without_projection(state_dict: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return a model's tensors without the projection that trains with it."""
    if state_dict is None:
        return None
    return {name: tensor for name, tensor in state_dict.items() if PROJECTION not in name.split(".")}


def write_state(student: PreTrainedModel, weight: HiddenWeight, folder: Path, writes: bool) -> None:
    """Write the state into a checkpoint; every rank calls this, one writes."""
    weight.update()
    tensors = {"hidden_weight": torch.tensor(weight.value, dtype=torch.float64)}
    projection = dict(student.named_children()).get(PROJECTION)
    if projection is not None:
        tensors["projection"] = full_tensor(projection.weight.detach()).cpu().contiguous()
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(folder / STATE) as part:
            save_file(tensors, part)


def read_state(student: PreTrainedModel, weight: HiddenWeight, folder: Path) -> None:
    """Read the state of a checkpoint.

    Raises:
        InputError: the checkpoint has none.
    """
    if not (folder / STATE).is_file():
        raise InputError(f"{folder} has no {STATE}: it was not written by a KDTrainer that compares hidden states")
    tensors = load_file(folder / STATE)
    weight.resume(tensors["hidden_weight"].item())
    if "projection" in tensors:
        _put(tensors["projection"], getattr(student, PROJECTION).weight)


@torch.no_grad()
def _put(whole: Tensor, weight: Tensor) -> None:
    if isinstance(weight, DTensor):
        whole = distribute_tensor(whole.to(weight.device, weight.dtype), weight.device_mesh, weight.placements)
    if weight.shape == whole.shape:  # ZeRO-3's parameters are empty here; DeepSpeed's own checkpoint has filled them
        weight.copy_(whole)
