"""The projection from a student's hidden size to its teacher's, trained to compare their states."""

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trl_prune.checkpoints import Provenance
from trl_prune.pruning.families import HIDDEN


# The student's attribute that holds the projection during training.
PROJECTION = "kd_projection"


def attach_projection(
    student: PreTrainedModel, teacher_hidden_size: int, provenance: Provenance | None, seed: int
) -> None:
    """Attach the shared up-projection to a student whose hidden size differs from its teacher's.

    It trains with the student and is left out of everything `save_pretrained` writes. Where the provenance lists the
    teacher's channel of each of the student's, the projection starts as the map of each channel to its original index;
    else at random.

    Args:
        student: the model, outside any wrapper.
        teacher_hidden_size: the teacher's hidden_size.
        provenance: the student's.
        seed: the seed of the random start.
    """
    hidden_size = student.config.get_text_config().hidden_size
    if hidden_size == teacher_hidden_size:
        return
    weight = _channel_map(hidden_size, teacher_hidden_size, provenance)
    if weight is None:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(teacher_hidden_size, hidden_size, generator=generator) / math.sqrt(hidden_size)
    projection = nn.Linear(hidden_size, teacher_hidden_size, bias=False)
    # It trains, so it is float32 even where the student is frozen in another dtype (QLoRA); autocast casts it down.
    projection.weight.data = weight.to(student.get_input_embeddings().weight.device, torch.float32)
    setattr(student, PROJECTION, projection)
    ignored = set(student._keys_to_ignore_on_save or ())
    student._keys_to_ignore_on_save = {*ignored, f"{PROJECTION}.weight"}


def _channel_map(hidden_size: int, teacher_hidden_size: int, provenance: Provenance | None) -> Tensor | None:
    channels = [] if provenance is None else provenance.keep.get(HIDDEN, [])
    if len(channels) != hidden_size or max(channels) >= teacher_hidden_size:
        return None
    return torch.eye(teacher_hidden_size)[:, channels]


def without_projection(state_dict: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return a model's state dict without the projection."""
    if state_dict is None:
        return None
    return {name: tensor for name, tensor in state_dict.items() if PROJECTION not in name.split(".")}
