"""The teacher: found, checked against the student's tokenizer, loaded, and asked."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import load_config, load_tokenizer, locate
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import lm_head
from trl_prune.losses.positions import learned_positions
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.intermediate_states import StatePoint, captured_states
from trl_prune.trainers.sharded import full_tensor
from trl_prune.trainers.teachers.origins import dense_of
from trl_prune.trainers.trl_names import config_model_id, gathered_head, prepare_deepspeed, prepare_fsdp


logger = logging.getLogger(__name__)
# Texts on which tokenizers that only look alike differ.
PROBES = (
    "The teacher's answer, in 2024, was 1,234.5 (about 12 %).",
    "def f(x):\n    return x  # tabs\tand   spaces\n",
    "naïve café, 東京, Привет, 🙂 e\u0301",
)
# What a batch holds beside the model's own inputs.
NOT_FOR_TEACHERS = (
    "labels",
    "shift_labels",
    "num_items_in_batch",
    "fused_lm_head",
    "use_cache",
    "output_router_logits",
)


@dataclass(frozen=True)
class TeacherSource:
    """A teacher that was found and not yet loaded.

    Attributes:
        folder: its checkpoint, where it was given by name.
        model: the model, where it was given in memory.
        init_kwargs: for `from_pretrained`.
    """

    folder: Path | None = None
    model: PreTrainedModel | None = None
    init_kwargs: dict | None = None

    @property
    def config(self) -> PreTrainedConfig:
        """The teacher's config."""
        return self.model.config if self.folder is None else load_config(self.folder)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the teacher's tokenizer, None where a model in memory does not lead to one."""
        if self.folder is not None:
            return load_tokenizer(self.folder)
        try:
            return load_tokenizer(config_model_id(self.model.config))
        except InputError:
            return None

    def load(self, device: torch.device) -> PreTrainedModel:
        """Return the model, frozen, where its user or `device` wants it."""
        if self.folder is None:
            return _placed(self.model, device).requires_grad_(False).eval()
        told = {"dtype": "auto"} | (self.init_kwargs or {})
        model = AutoModelForCausalLM.from_pretrained(self.folder, **told)
        return _placed(model, device).requires_grad_(False).eval()


def _placed(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move a model, unless accelerate spread it over devices or a quantiser put it where it is."""
    told = vars(model)
    return model if "hf_device_map" in told or "quantization_method" in told else model.to(device)


def find_teacher(given: str | PreTrainedModel | None, student: object, init_kwargs: dict | None) -> TeacherSource:
    """Return the teacher that was given, or the student's dense root.

    Raises:
        InputError: there is none, or none was given and the student has no provenance.
    """
    if given is not None and not isinstance(given, (str, Path)):
        return TeacherSource(model=given.get_base_model() if is_peft_model(given) else given)
    told = dict(init_kwargs or {})
    revision = told.pop("revision", None)
    folder = dense_of(student, "`teacher_cache`") if given is None else locate(str(given), revision)
    return TeacherSource(folder=folder, init_kwargs=told)


def check_tokenizers(teacher: TeacherSource, student: PreTrainedConfig, ours: PreTrainedTokenizerBase) -> None:
    """Check that both models mean the same by the same ids, by letting both tokenizers encode.

    Raises:
        InputError: they do not, or cannot be asked where the vocabularies differ in size.
    """
    theirs = teacher.tokenizer()
    sizes = [config.get_text_config().vocab_size for config in (student, teacher.config)]
    if theirs is None and sizes[0] != sizes[1]:
        raise InputError(
            f"the teacher's vocabulary has {sizes[1]} ids and the student's {sizes[0]}, and the teacher in memory has "
            "no tokenizer to compare; give `teacher_model` as a folder or hub id"
        )
    if theirs is None:
        logger.warning(
            "The teacher in memory leads to no tokenizer: whether its ids mean what the student's mean is unknown"
        )
    else:
        _check_encodings(ours, theirs)
    if sizes[0] != sizes[1]:
        logger.warning(
            "The student's vocabulary has %d ids, the teacher's %d, and their tokenizers encode alike: the divergence "
            "is taken over the %d shared ids, with the teacher's mass renormalised.",
            *sizes,
            min(sizes),
        )


def _check_encodings(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
    specials = "".join(token for token in theirs.all_special_tokens if token in ours.get_vocab())
    for probe in (*PROBES, specials):
        ids = [tokenizer(probe, add_special_tokens=False)["input_ids"] for tokenizer in (ours, theirs)]
        if ids[0] != ids[1]:
            raise InputError(
                f"the teacher's tokenizer is another than the student's: it encodes {probe!r} as {ids[1][:8]}..., the "
                f"student's as {ids[0][:8]}...; distillation compares ids, so both must be the same"
            )


class OnlineTeacher:
    """A frozen model that says what it would predict.

    Attributes:
        model: the model, as its user or accelerate placed it.
    """

    def __init__(self, model: PreTrainedModel, accelerator: Accelerator):
        self.model = model
        self._accelerator = accelerator
        _prepare(model, accelerator)

    @torch.no_grad()
    def read(self, inputs: dict, points: tuple[StatePoint, ...]) -> tuple[HeadTarget, dict[StatePoint, Tensor]]:
        """Return what the teacher says about a batch's learned positions, and its states at some points.

        Args:
            inputs: the batch, labels among it.
            points: where states are read, `(batch, tokens, width)`.

        Raises:
            InputError: the batch has ids beyond the teacher's vocabulary.
        """
        self._check_ids(inputs["input_ids"])
        learned = learned_positions(inputs["labels"])
        asked = {name: value for name, value in inputs.items() if name not in NOT_FOR_TEACHERS}
        with self._accelerator.autocast(), captured_states(self.model, points) as states:
            final = self.model.base_model(**asked, use_cache=False).last_hidden_state
        return self._target(final[:, :-1][learned.to(final.device)], inputs["labels"].device), states

    def _check_ids(self, ids: Tensor) -> None:
        known = self.model.config.get_text_config().vocab_size
        if ids.numel() and int(ids.max()) >= known:
            raise InputError(
                f"the batch has token id {int(ids.max())}, and the teacher's vocabulary ends at {known - 1}; the "
                "student's tokenizer has tokens that the teacher does not know"
            )

    def _target(self, states: Tensor, device: torch.device) -> HeadTarget:
        head = lm_head(self.model)
        with gathered_head(head.weight, head.bias):
            head = head.each(lambda part: full_tensor(part).detach().to(device))
        return HeadTarget(states.to(device), head)


def _prepare(model: PreTrainedModel, accelerator: Accelerator) -> nn.Module:
    """Shard a teacher as the student is; on one device, or under DDP, it stays as it is."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return prepare_deepspeed(model, accelerator)
    if accelerator.distributed_type == DistributedType.FSDP:
        return prepare_fsdp(model.base_model, accelerator)
    return model


def check_finite_target(target: HeadTarget, inputs: dict) -> None:
    """Stop where a teacher's states are no numbers.

    Raises:
        InputError: some are not; the batch's rows are named.
    """
    bad = ~torch.isfinite(target.hidden.float()).all(1)
    bad |= ~torch.isfinite(target.hidden.float() @ target.head.weight.float().sum(0))
    learned = learned_positions(inputs["labels"])
    rows = learned.nonzero()[:, 0][bad.to(learned.device)].unique().tolist()
    if rows:
        begins = inputs["input_ids"][rows[0], :12].tolist()
        raise InputError(
            f"the teacher's logits are not finite on rows {', '.join(map(str, rows))} of the batch (row {rows[0]} "
            f"begins with ids {begins}); another dtype (`teacher_model_init_kwargs`) usually mends that"
        )
