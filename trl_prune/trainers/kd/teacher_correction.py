"""Fit the teacher to the distillation data before it teaches (teacher correction, arXiv 2408.11796).

A teacher that never saw the data guides worse on it. A short pass of ordinary fine-tuning mends that; the corrected
teacher is kept beside the run, so that a resumed run finds it.
"""

import gc
import hashlib
import json
from dataclasses import fields
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import atomic_folder, copy_companions, fingerprint, load_config, write_json
from trl_prune.errors import InputError
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.sft_arguments import LORA_DEFAULTS
from trl_prune.trainers.teachers.online import TeacherSource


# Beginning with `_`, it is left out where `push_to_hub` uploads the output folder.
FOLDER = "_corrected_teacher"
MARK = "correction.json"
# Arguments that do not touch what is learned.
ELSEWHERE = (
    "output_dir", "run_name", "logging", "report", "disable_tqdm", "hub", "push", "save", "eval", "log", "project",
    "dataloader_num", "dataset_num", "trackio",
)  # fmt: skip


def corrected(source: TeacherSource, args: KDConfig, dataset: object, named: dict) -> TeacherSource:
    """Return the teacher, fine-tuned on the dataset as SFTTrainer would, or as an earlier start left it.

    Args:
        source: the teacher; its folder is only read.
        args: the distillation's; `teacher_correction` says what is trained, `teacher_correction_args` overrides.
        dataset: the rows, as SFTTrainer takes them.
        named: SFTTrainer's arguments that say how rows become tokens.

    Raises:
        InputError: the teacher was given in memory, where a corrected one would need a copy, or weights are sharded.
    """
    if source.folder is None:
        raise InputError("teacher_correction wants `teacher_model` as a folder or hub id, not a model in memory")
    target = Path(args.output_dir) / FOLDER
    mark = _mark(source.folder, args, dataset)
    if mark is not None and _is_done(target, mark):
        return TeacherSource(target, init_kwargs=source.init_kwargs)
    preparing = {name: named[name] for name in ("processing_class", "formatting_func") if name in named}
    peft = LoraConfig(**LORA_DEFAULTS) if args.teacher_correction == "lora" else None
    model = _trainable(str(source.folder), args.teacher_correction, args)
    trainer = SFTTrainer(model, correction_arguments(args), train_dataset=dataset, peft_config=peft, **preparing)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError(
            "teacher_correction keeps the teacher whole on every device, and this run shards models; correct it in a "
            "run of its own and give the folder as `teacher_model`"
        )
    trainer.train()
    _save(trainer, source.folder, target, mark)
    del trainer, model
    gc.collect()  # a trainer and its model hold each other, and the student is loaded next
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return TeacherSource(target, init_kwargs=source.init_kwargs)


def correction_arguments(args: KDConfig) -> SFTConfig:
    """Return the arguments of the correction: the distillation's, but that nothing is published or kept on the way."""
    told = {entry.name: getattr(args, entry.name) for entry in fields(SFTConfig) if entry.init}
    kept = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "push_to_hub": False}
    kept |= {"output_dir": str(Path(args.output_dir) / "_correction"), "hub_model_id": None}
    return SFTConfig(**(told | kept | (args.teacher_correction_args or {})))


def _trainable(folder: str, how: str, args: KDConfig) -> str | PreTrainedModel:
    if how != "norms":
        return folder
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").to(args.device).requires_grad_(False)
    norms = [module for module in model.modules() if _is_norm(module)]
    for norm in norms:
        norm.requires_grad_(True)
    return model


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _mark(folder: Path, args: KDConfig, dataset: object) -> dict | None:
    """Return what the corrected teacher depends on; None for a stream, whose rows are not known before."""
    if not isinstance(dataset, Dataset):
        return None
    rows = hashlib.sha256(json.dumps(dataset.column_names).encode())
    for batch in dataset.iter(1000):
        rows.update(json.dumps(batch, default=str).encode())
    decides = {
        name: value for name, value in correction_arguments(args).to_dict().items() if not name.startswith(ELSEWHERE)
    }
    told = {"how": args.teacher_correction, "args": decides, "rows": rows.hexdigest()[:16]}
    return json.loads(json.dumps(told | {"teacher": fingerprint(folder)}, default=str))


def _is_done(target: Path, mark: dict) -> bool:
    path = target / MARK
    return path.is_file() and json.loads(path.read_text()) == mark


def _save(trainer: SFTTrainer, source: Path, target: Path, mark: dict | None) -> None:
    """Write the corrected teacher as a plain checkpoint in its own dtype; one process does."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_peft_model(model):
        model = model.merge_and_unload()
    if trainer.args.should_save:
        with atomic_folder(target) as part:
            copy_companions(source, part)
            model.to(load_config(source).dtype).save_pretrained(part)
            write_json(part / MARK, mark)
    trainer.accelerator.wait_for_everyone()
