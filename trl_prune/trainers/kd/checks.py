"""Checks of a distillation before it starts."""

import logging

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTTrainer

from trl_prune.checkpoints import load_config, load_tokenizer, locate
from trl_prune.errors import InputError
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.layer_map import state_pairs
from trl_prune.trainers.kd.on_policy import check_on_policy
from trl_prune.trainers.kd.projection import PROJECTION
from trl_prune.trainers.teachers.shared_blocks import check_unsharded
from trl_prune.trainers.teachers.source import TeacherSource
from trl_prune.trainers.teachers.student_origin import StudentOrigin
from trl_prune.trainers.teachers.tokenizer_check import check_tokenizers
from trl_prune.trainers.trl_names import config_model_id


logger = logging.getLogger(__name__)


def check_trainer(trainer: SFTTrainer) -> None:
    """Check that a trainer's dataset and parallelism allow distillation.

    Raises:
        InputError: sequences are split over ranks, FSDP is of version 1, blocks to be frozen are sharded, the
            student cannot continue the rows itself, or no row has a token to learn.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version == 1:
        raise InputError("KDTrainer needs FSDP 2, which keeps the model's modules; set `fsdp_version: 2`")
    parallelism = trainer.accelerator.parallelism_config
    if parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
        raise InputError(
            "context and sequence parallelism split a row over ranks, which the teacher's forward does not support"
        )
    if trainer.args.freeze_shared_blocks:
        check_unsharded(trainer)
    if trainer.args.lmbda:
        check_on_policy(trainer.args, trainer.train_dataset)
    rows = trainer.train_dataset
    if isinstance(rows, Dataset) and not len(rows):
        raise InputError("no row of the training dataset has a token to learn: the labels are all masked")


def check_optimizer(optimizer: object, student: PreTrainedModel) -> None:
    """Check that an optimizer given by the user covers the projection.

    Raises:
        InputError: it was created before the projection.
    """
    if optimizer is not None and PROJECTION in dict(student.named_children()):
        raise InputError(
            "`optimizers` holds an optimizer without the projection between the models' hidden sizes; choose it by "
            "`optim` or `optimizer_cls_and_kwargs`, or set hidden_loss='none'"
        )


def check_before_correction(
    source: TeacherSource,
    student: str | PreTrainedModel,
    origin: StudentOrigin,
    args: KDConfig,
    processing_class: PreTrainedTokenizerBase | None,
) -> None:
    """Check tokenizers and layer map before a teacher is corrected, rather than when the corrected one is loaded.

    Args:
        source: the teacher before its correction.
        student: the student, or its folder or hub id.
        origin: the student's origin.
        args: the distillation's arguments.
        processing_class: the student's tokenizer or processor; its checkpoint's where None.

    Raises:
        InputError: the tokenizers differ, or the layer map is out of range.
    """
    if isinstance(student, str):
        checkpoint = locate(student, (args.model_init_kwargs or {}).get("revision"))
        config = load_config(checkpoint)
    else:
        checkpoint, config = config_model_id(student.config), student.config
    tokenizer = processing_class or load_tokenizer(checkpoint)
    check_tokenizers(source, config, getattr(tokenizer, "tokenizer", tokenizer))
    state_pairs(args.hidden_loss, args.layer_map, config, source.config, origin.provenance_for(source.config))


def disable_unused_cross_entropy(trainer: SFTTrainer) -> None:
    """Disable TRL's alternative cross-entropies where the cross-entropy has no weight, and warn of it."""
    is_set = {
        "compute_loss_func": trainer.compute_loss_func is not None,
        "label_smoothing_factor": trainer.label_smoother is not None,
        "loss_type='dft'": trainer.args.loss_type == "dft",
    }
    names = [name for name, value in is_set.items() if value]
    if names and not trainer.args.ce_weight:
        logger.warning("%s sets the cross-entropy, which has no weight; set `ce_weight`", ", ".join(names))
        trainer.compute_loss_func = trainer.label_smoother = None
