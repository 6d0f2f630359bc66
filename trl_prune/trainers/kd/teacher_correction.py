"""Fine-tune the teacher on the distillation data before distillation (teacher correction, arXiv 2408.11796).

A teacher that was not trained on the data predicts it worse. A short run of ordinary fine-tuning corrects that; the
corrected teacher is kept in the output folder, so that a resumed run reuses it.
"""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

from accelerate.utils import is_peft_model, release_memory
from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTConfig

from trl_prune.checkpoints import atomic_folder, copy_companions, fingerprint, load_config, model_class, write_json
from trl_prune.errors import InputError
from trl_prune.trainers.checked import CheckedSFTTrainer
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.sft_arguments import lora_config
from trl_prune.trainers.teachers.source import TeacherSource


# A name with a leading `_` is not uploaded when `push_to_hub` uploads the output folder.
FOLDER = "_corrected_teacher"
RECORD_FILE = "correction.json"
# Prefixes of the arguments that do not change what the teacher learns.
IRRELEVANT_PREFIXES = (
    "output_dir", "run_name", "logging", "report", "disable_tqdm", "hub", "push", "save", "eval", "log", "project",
    "dataloader_num", "dataset_num", "trackio",
)  # fmt: skip


def correct_teacher(
    source: TeacherSource, args: KDConfig, dataset: object, sft_arguments: dict[str, object]
) -> TeacherSource:
    """Return the teacher fine-tuned on the dataset by SFTTrainer, or as an earlier start with the same inputs left it.

    Args:
        source: the teacher; its folder is not changed.
        args: the distillation's arguments, `teacher_correction` and `teacher_correction_args` among them.
        dataset: the rows, as SFTTrainer takes them.
        sft_arguments: SFTTrainer's arguments by name; those are used that determine how rows become tokens.

    Raises:
        InputError: the teacher was given in memory, where correction would need a copy, or weights are sharded.
    """
    if source.folder is None:
        raise InputError("teacher_correction needs `teacher_model` as a folder or hub id, not a model in memory")
    target = Path(args.output_dir) / FOLDER
    record = _correction_record(source.folder, args, dataset)
    if record is None or not _is_complete(target, record):
        trainer = _correction_trainer(source.folder, args, dataset, sft_arguments)
        trainer.check_saving()
        trainer.train()
        _save(trainer, source.folder, target, record)
        del trainer
        release_memory()  # a trainer and its model refer to each other, and the student is loaded next
    return TeacherSource(target, init_kwargs=source.init_kwargs)


def _correction_trainer(folder: Path, args: KDConfig, dataset: object, sft_arguments: dict) -> CheckedSFTTrainer:
    preparation = {
        name: sft_arguments[name] for name in ("processing_class", "formatting_func") if name in sft_arguments
    }
    peft_config = lora_config() if args.teacher_correction == "lora" else None
    model = _load_with_trainable_norms(folder, args) if args.teacher_correction == "norms" else str(folder)
    trainer = CheckedSFTTrainer(
        model, correction_arguments(args), train_dataset=dataset, peft_config=peft_config, **preparation
    )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise InputError(
            "teacher_correction keeps a full teacher on every device, and this run shards models; correct it in a "
            "separate run and give the folder as `teacher_model`"
        )
    return trainer


def correction_arguments(args: KDConfig) -> SFTConfig:
    """Return the arguments of the correction: the distillation's, without checkpoints, evaluation and upload."""
    inherited = {field.name: getattr(args, field.name) for field in fields(SFTConfig) if field.init}
    fixed = {
        "output_dir": str(Path(args.output_dir) / "_correction"),
        "save_strategy": "no",
        "eval_strategy": "no",
        "eval_on_start": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "hub_model_id": None,
    }
    return SFTConfig(**(inherited | fixed | (args.teacher_correction_args or {})))


def _load_with_trainable_norms(folder: Path, args: KDConfig) -> PreTrainedModel:
    auto_class = model_class(load_config(folder))
    model = auto_class.from_pretrained(folder, dtype="float32").to(args.device).requires_grad_(False)
    for module in model.modules():
        if "Norm" in type(module).__name__:
            module.requires_grad_(True)
    return model


def _correction_record(folder: Path, args: KDConfig, dataset: object) -> dict | None:
    """Return what determines the corrected teacher; None for a stream, whose rows are not known in advance."""
    if not isinstance(dataset, Dataset):
        return None
    rows_hash = hashlib.sha256(json.dumps(dataset.column_names).encode())
    for batch in dataset.iter(1000):
        rows_hash.update(json.dumps(batch, default=str).encode())
    arguments = {
        name: value
        for name, value in correction_arguments(args).to_dict().items()
        if not name.startswith(IRRELEVANT_PREFIXES)
    }
    record = {
        "how": args.teacher_correction,
        "args": arguments,
        "rows": rows_hash.hexdigest()[:16],
        "teacher": fingerprint(folder),
    }
    return json.loads(json.dumps(record, default=str))


def _is_complete(folder: Path, record: dict) -> bool:
    path = folder / RECORD_FILE
    return path.is_file() and json.loads(path.read_text()) == record


def _save(trainer: CheckedSFTTrainer, source: Path, target: Path, record: dict | None) -> None:
    """Write the corrected teacher as an ordinary checkpoint in its own dtype; only one process writes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if is_peft_model(model):
        model = model.merge_and_unload()
    if trainer.args.should_save:
        with atomic_folder(target) as partial_dir:
            copy_companions(source, partial_dir)
            model.to(load_config(source).dtype).save_pretrained(partial_dir)
            write_json(partial_dir / RECORD_FILE, record)
    trainer.accelerator.wait_for_everyone()
