"""A teacher that shares its student's tensors, so that they are not in memory twice.

A depth-pruned student keeps the dense model's other blocks unchanged, and LoRA leaves them frozen. The teacher adds
only the removed blocks.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import Provenance, load_config, model_class, tensor_files
from trl_prune.data.shared_blocks import plain_name
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.cut import Cut


logger = logging.getLogger(__name__)


def shared_teacher(
    student: PreTrainedModel | PeftModel, folder: Path, provenance: Provenance
) -> PreTrainedModel | None:
    """Return the dense model built on its student's frozen tensors, or None where those differ from the dense model's.

    Args:
        student: the student during training.
        folder: the dense model's checkpoint folder.
        provenance: the student's.
    """
    if not isinstance(student, PeftModel) or provenance.edits or set(provenance.keep) != {LAYERS}:
        return None
    frozen = _frozen_tensors(student)
    reference = next(iter(frozen.values()))
    state_dict: dict[str, Tensor] = {}
    for dense_name, student_name, tensor in _dense_tensors(folder, provenance):
        if student_name is None:
            state_dict[dense_name] = tensor.to(reference.device, reference.dtype)
        elif student_name in frozen and _are_equal(frozen[student_name], tensor):
            state_dict[dense_name] = frozen[student_name]
        else:
            logger.info("The student's %s differs from the teacher's, so the teacher is loaded in full", student_name)
            return None
    return _build_teacher(folder, state_dict, reference.dtype)


def _frozen_tensors(student: PeftModel) -> dict[str, Tensor]:
    """Return the student's frozen tensors by their names in its checkpoint."""
    parameters = student.get_base_model().named_parameters(remove_duplicate=False)
    return {plain_name(name): weight for name, weight in parameters if not weight.requires_grad}


def _dense_tensors(folder: Path, provenance: Provenance) -> Iterator[tuple[str, str | None, Tensor]]:
    """Yield each tensor of the dense checkpoint with its name there and in the student, None where it was removed."""
    cut = Cut.of(load_config(folder), provenance.keep)
    files = tensor_files(folder)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as tensors:
            for name in sorted(name for name, file in files.items() if file == path):
                yield name, cut.new_name(name), tensors.get_tensor(name)


def _are_equal(student: Tensor, dense: Tensor) -> bool:
    return student.shape == dense.shape and torch.equal(student, dense.to(student.device, student.dtype))


def _build_teacher(folder: Path, state_dict: dict[str, Tensor], dtype: torch.dtype) -> PreTrainedModel | None:
    """Return the model of a state dict, None where the state dict lacks any of its tensors."""
    with init_empty_weights(include_buffers=False):
        config = load_config(folder)
        teacher = model_class(config).from_config(config, dtype=dtype)
    teacher.load_state_dict(state_dict, strict=False, assign=True)
    teacher.tie_weights()
    if any(weight.is_meta for weight in teacher.state_dict().values()):
        return None
    device = next(iter(state_dict.values())).device  # the parameters are on it; this moves the buffers
    return teacher.to(device).requires_grad_(False).eval()
