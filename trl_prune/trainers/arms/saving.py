"""From a trainer to an ordinary checkpoint: find complete checkpoints, gather shards, merge adapters."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel
from transformers.integrations import unset_hf_deepspeed_config
from trl import SFTTrainer

from trl_prune.checkpoints import (
    atomic_folder,
    copy_companions,
    library_versions,
    load_config,
    model_class,
    read_provenance,
    verify_companions,
    write_provenance,
)
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.kd.projection import PROJECTION, without_projection
from trl_prune.trainers.sft_arguments import lora_config


SHARDED_TYPES = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def full_model(trainer: SFTTrainer, settings: ArmSettings) -> PreTrainedModel | PeftModel:
    """Return the trained model outside any wrapper.

    Weights sharded over processes are gathered into a new model; only the first process's is complete.
    """
    accelerator = trainer.accelerator
    if accelerator.distributed_type not in SHARDED_TYPES:
        return unquantised(accelerator.unwrap_model(trainer.model), settings)
    state_dict = without_projection(accelerator.get_state_dict(trainer.model_wrapped))
    unset_hf_deepspeed_config()  # while it is set, ZeRO-3 makes every new model of empty shards
    model = _load_student(settings)
    if trainer.is_world_process_zero():
        model.load_state_dict(state_dict)
    return model


def unquantised(model: PreTrainedModel | PeftModel, settings: ArmSettings) -> PreTrainedModel | PeftModel:
    """Return a trained model; an adapter on quantised weights (QLoRA) moves to the student's unquantised ones."""
    if not (isinstance(model, PeftModel) and getattr(model.get_base_model(), "is_quantized", False)):
        return model
    full = _load_student(settings)
    set_peft_model_state_dict(full, get_peft_model_state_dict(model))
    return full


def _load_student(settings: ArmSettings) -> PreTrainedModel | PeftModel:
    auto_class = model_class(load_config(Path(settings.student)))
    model = auto_class.from_pretrained(settings.student, dtype=torch.float32)
    return model if settings.peft is None else get_peft_model(model, lora_config(settings.peft))


def last_complete_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest of a trainer's checkpoints that was written to its end; the state file comes last."""
    checkpoints = sorted(output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((path for path in checkpoints if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] > 0
    except (OSError, ValueError, KeyError):
        return False


def save_recovered(model: PreTrainedModel | PeftModel, student: Path, target: Path) -> None:
    """Write a trained model as an ordinary checkpoint with its student's companion files and provenance."""
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if PROJECTION in dict(model.named_children()):
        delattr(model, PROJECTION)
    config = load_config(student)
    model = model.to(config.dtype)
    # The Trainer turns it off for training, and adds it to a multimodal config, whose towers have their own.
    vars(model.config).pop("use_cache", None)
    if hasattr(config, "use_cache"):
        model.config.use_cache = config.use_cache
    with atomic_folder(target) as partial_dir:
        copy_companions(student, partial_dir)
        model.save_pretrained(partial_dir)
        verify_companions(student, partial_dir)
        provenance = read_provenance(student)
        if provenance is not None:
            provenance = replace(provenance, parent=str(student), versions=library_versions())
            write_provenance(provenance, partial_dir)
