"""What distillation cannot do, said before it costs anything."""

import logging

from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTTrainer

from trl_prune.checkpoints import load_config, load_tokenizer, locate
from trl_prune.errors import InputError
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.hidden_term import PROJECTION
from trl_prune.trainers.kd.layer_map import pairs_to_compare
from trl_prune.trainers.teachers.online import TeacherSource, check_tokenizers
from trl_prune.trainers.teachers.origins import provenance_of
from trl_prune.trainers.trl_names import config_model_id


logger = logging.getLogger(__name__)


def check_arguments(trainer: SFTTrainer) -> None:
    """Refuse what distillation cannot do.

    Raises:
        InputError: the sequence is spread over ranks, FSDP is of version 1, or no row has a token to learn.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 1:
        raise InputError("KDTrainer wants FSDP 2, which leaves modules in place; set `fsdp_version: 2`")
    parallel = trainer.accelerator.parallelism_config
    if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
        raise InputError("context and sequence parallelism spread a row over ranks, which the teacher does not follow")
    rows = trainer.train_dataset
    if isinstance(rows, Dataset) and not len(rows):
        raise InputError("no row of the training dataset has a token to learn: the loss's mask leaves none")


def check_optimizer(optimizer: object, student: PreTrainedModel) -> None:
    """Refuse an optimizer that was made before the projection that it should train.

    Raises:
        InputError: there are both.
    """
    if optimizer is not None and PROJECTION in dict(student.named_children()):
        raise InputError(
            "`optimizers` holds an optimizer that does not know the projection between the models' widths; name it by "
            "`optim` or `optimizer_cls_and_kwargs`, or set hidden_loss='none'"
        )


def check_before_correction(
    source: TeacherSource, student: str | PreTrainedModel, args: KDConfig, ours: object
) -> None:
    """Check, before a teacher is corrected, what is checked again where it is heard.

    Args:
        source: the teacher as it was given.
        student: the student, or its folder or hub id.
        args: the distillation's.
        ours: the student's tokenizer or processor, where it was given.

    Raises:
        InputError: another tokenizer, or a map out of range.
    """
    if isinstance(student, str):
        folder = locate(student, (args.model_init_kwargs or {}).get("revision"))
        config, tokenizer = load_config(folder), ours or load_tokenizer(folder)
    else:
        config, tokenizer = student.config, ours or load_tokenizer(config_model_id(student.config))
    check_tokenizers(source, config, getattr(tokenizer, "tokenizer", tokenizer))
    pairs_to_compare(args.hidden_loss, args.layer_map, config, source.config, provenance_of(student, source.config))


def disable_unused_cross_entropy(trainer: SFTTrainer) -> None:
    """Leave out TRL's own ways to a cross-entropy where that has no weight, and say so."""
    asked = {
        "compute_loss_func": trainer.compute_loss_func is not None,
        "label_smoothing_factor": trainer.label_smoother is not None,
        "loss_type='dft'": trainer.args.loss_type == "dft",
    }
    given = [name for name, is_asked in asked.items() if is_asked]
    if given and not trainer.args.ce_weight:
        logger.warning("%s decides the cross-entropy, which has no weight here; set `ce_weight`", ", ".join(given))
        trainer.compute_loss_func = trainer.label_smoother = None
