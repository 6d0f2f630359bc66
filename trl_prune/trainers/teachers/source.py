"""A teacher before it is loaded: a checkpoint folder, or a model in memory."""

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import load_config, load_tokenizer, loading_dtype, locate, model_class
from trl_prune.data.shared_blocks import attention_implementation
from trl_prune.errors import InputError
from trl_prune.trainers.teachers.student_origin import StudentOrigin
from trl_prune.trainers.trl_names import config_model_id


@dataclass(frozen=True)
class TeacherSource:
    """A teacher that is not loaded yet.

    Attributes:
        folder: its checkpoint folder; None for a model in memory.
        model: the model in memory, if it was given as one.
        init_kwargs: arguments for `from_pretrained`.
    """

    folder: Path | None = None
    model: PreTrainedModel | None = None
    init_kwargs: dict | None = None

    @property
    def config(self) -> PreTrainedConfig:
        """The teacher's config."""
        return self.model.config if self.folder is None else load_config(self.folder)

    def load_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the teacher's tokenizer; None for a model in memory whose config names no checkpoint with one."""
        if self.folder is not None:
            return load_tokenizer(self.folder)
        try:
            return load_tokenizer(config_model_id(self.model.config))
        except InputError:
            return None

    def loading_arguments(self, device: torch.device, like: PreTrainedModel | None = None) -> dict:
        """Return the arguments for `from_pretrained`: those given with the teacher, and `load_model`'s defaults."""
        defaults = {"dtype": loading_dtype(self.config, device.type)}
        if like is not None:
            defaults = {"dtype": like.dtype, "attn_implementation": attention_implementation(like)}
        return defaults | (self.init_kwargs or {})

    def load_model(self, device: torch.device, like: PreTrainedModel | None = None) -> PreTrainedModel:
        """Return the teacher in eval mode with frozen weights, on a device unless it is dispatched or quantised.

        Args:
            device: the device.
            like: a model whose dtype and attention it gets where none are given with it, because equal blocks compute
                equal states only then; None for the checkpoint's dtype, where the processor has it.
        """
        model = self.model
        if self.folder is not None:
            arguments = self.loading_arguments(device, like)
            model = model_class(self.config).from_pretrained(self.folder, **arguments)
        if not {"hf_device_map", "quantization_method"} & vars(model).keys():
            model = model.to(device)
        return model.requires_grad_(False).eval()


def find_teacher(
    teacher: str | PreTrainedModel | None, student: StudentOrigin, init_kwargs: dict | None
) -> TeacherSource:
    """Return the given teacher, else the student's dense root.

    Args:
        teacher: a model, or its folder or hub id.
        student: the origin of the student.
        init_kwargs: arguments for `from_pretrained`, `revision` among them.

    Raises:
        InputError: the teacher does not exist, or none is given and the student has no provenance.
    """
    if teacher is not None and not isinstance(teacher, (str, Path)):
        return TeacherSource(model=teacher.get_base_model() if is_peft_model(teacher) else teacher)
    init_kwargs = dict(init_kwargs or {})
    revision = init_kwargs.pop("revision", None)
    folder = student.dense_folder("`teacher_cache`") if teacher is None else locate(str(teacher), revision)
    return TeacherSource(folder=folder, init_kwargs=init_kwargs)
