"""A teacher that shares its student's tensors: no second copy of what a cut and an adapter leave as it was.

The kept blocks of a depth-pruned student are the teacher's own, and LoRA leaves them frozen. What the teacher needs
besides are the blocks that were removed.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from trl_prune.checkpoints import Provenance, load_config, tensor_files
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.cut import Cut


logger = logging.getLogger(__name__)


def shared_teacher(
    student: PreTrainedModel | PeftModel, folder: Path, provenance: Provenance
) -> PreTrainedModel | None:
    """Return the dense model on its student's frozen tensors, or None where they are not the dense model's.

    Args:
        student: the student as it trains.
        folder: the dense model's checkpoint.
        provenance: the student's.
    """
    if not isinstance(student, PeftModel) or provenance.edits or set(provenance.keep) != {LAYERS}:
        return None
    frozen = _frozen(student)
    state: dict[str, Tensor] = {}
    for name, kept, stored in _dense_tensors(folder, provenance):
        if kept is None:
            reference = next(iter(frozen.values()))
            state[name] = stored.to(reference.device, reference.dtype)
        elif kept in frozen and _are_equal(frozen[kept], stored):
            state[name] = frozen[kept]
        else:
            logger.info("The student's %s is not the teacher's, so the teacher is loaded whole", kept)
            return None
    return _assembled(folder, state, next(iter(frozen.values())).dtype)


def _frozen(student: PeftModel) -> dict[str, Tensor]:
    """Return the student's frozen tensors under their names in its checkpoint."""
    named = student.get_base_model().named_parameters(remove_duplicate=False)
    return {name.replace(".base_layer.", "."): weight for name, weight in named if not weight.requires_grad}


def _dense_tensors(folder: Path, provenance: Provenance) -> Iterator[tuple[str, str | None, Tensor]]:
    """Yield each tensor of the dense checkpoint with its name there and in the student, None where it was removed."""
    cut = Cut.of(load_config(folder), provenance.keep)
    files = tensor_files(folder)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as stored:
            for name in sorted(name for name, file in files.items() if file == path):
                yield name, cut.name(name), stored.get_tensor(name)


def _are_equal(ours: Tensor, stored: Tensor) -> bool:
    return ours.shape == stored.shape and torch.equal(ours, stored.to(ours.device, ours.dtype))


def _assembled(folder: Path, state: dict[str, Tensor], dtype: torch.dtype) -> PreTrainedModel | None:
    with init_empty_weights(include_buffers=False):
        teacher = AutoModelForCausalLM.from_config(load_config(folder), dtype=dtype)
    teacher.load_state_dict(state, strict=False, assign=True)
    teacher.tie_weights()
    whole = not any(weight.is_meta for weight in teacher.state_dict().values())
    if not whole:
        return None
    device = next(iter(state.values())).device  # the parameters are there; buffers follow
    return teacher.to(device).requires_grad_(False).eval()
