"""From a trainer to an ordinary checkpoint: complete checkpoints found, shards gathered, adapters merged."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import unset_hf_deepspeed_config
from trl import SFTTrainer

from trl_prune.checkpoints import (
    atomic_folder,
    copy_companions,
    library_versions,
    load_config,
    read_provenance,
    write_provenance,
)
from trl_prune.trainers.arms.plan import ArmPlan
from trl_prune.trainers.kd.hidden_term import PROJECTION
from trl_prune.trainers.kd.state import without_projection
from trl_prune.trainers.sft_arguments import LORA_DEFAULTS


SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def whole_model(trainer: SFTTrainer, plan: ArmPlan) -> PreTrainedModel | PeftModel:
    """Return the trained model; where it is spread over processes, the first one gathers it into a fresh one."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type not in SHARDED:
        return unquantised(accelerator.unwrap_model(trainer.model), plan)
    state = without_projection(accelerator.get_state_dict(trainer.model_wrapped))
    unset_hf_deepspeed_config()  # while it is set, ZeRO-3 makes every new model of empty shards
    model = _fresh(plan)
    if trainer.is_world_process_zero():
        model.load_state_dict(state)
    return model


def unquantised(model: PreTrainedModel | PeftModel, plan: ArmPlan) -> PreTrainedModel | PeftModel:
    """Return a trained model; an adapter on quantised weights (QLoRA) is put on those it was quantised from."""
    if not (isinstance(model, PeftModel) and getattr(model.get_base_model(), "is_quantized", False)):
        return model
    fresh = _fresh(plan)
    set_peft_model_state_dict(fresh, get_peft_model_state_dict(model))
    return fresh


def _fresh(plan: ArmPlan) -> PreTrainedModel | PeftModel:
    model = AutoModelForCausalLM.from_pretrained(plan.student, dtype=torch.float32)
    return model if plan.peft is None else get_peft_model(model, LoraConfig(**(LORA_DEFAULTS | plan.peft)))


def last_whole_checkpoint(folder: Path) -> Path | None:
    """Return the newest of a trainer's checkpoints that was written to its end; the state file comes last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((path for path in found if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] > 0
    except (OSError, ValueError, KeyError):
        return False


def save_recovered(model: PreTrainedModel | PeftModel, student: Path, target: Path) -> None:
    """Write a trained model as a plain checkpoint that carries its student's companions and provenance."""
    if isinstance(model, PeftModel):
        model = model.merge_and_unload()
    if PROJECTION in dict(model.named_children()):
        delattr(model, PROJECTION)
    told = load_config(student)
    model = model.to(told.dtype)
    model.config.use_cache = told.use_cache  # the Trainer turns it off for training
    with atomic_folder(target) as part:
        copy_companions(student, part)
        model.save_pretrained(part)
        provenance = read_provenance(student)
        if provenance is not None:
            told = replace(provenance, parent=str(student), versions=library_versions())
            write_provenance(told, part)
