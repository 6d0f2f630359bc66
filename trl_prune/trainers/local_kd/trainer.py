"""Local distillation as a drop-in for TRL's SFTTrainer."""

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import ModelOutput
from trl import SFTConfig

from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.trainers.checked import CheckedSFTTrainer
from trl_prune.trainers.local_kd.config import LocalKDConfig
from trl_prune.trainers.local_kd.forward import dense_states, next_norms, patch_forward
from trl_prune.trainers.local_kd.segments import Segment, cut_segments
from trl_prune.trainers.preparation import trainer_rows
from trl_prune.trainers.sft_arguments import convert_config, named_arguments
from trl_prune.trainers.teachers.online import teacher_inputs
from trl_prune.trainers.teachers.shared_blocks import check_unsharded, freeze_all_but
from trl_prune.trainers.teachers.source import TeacherSource, find_teacher
from trl_prune.trainers.teachers.student_origin import StudentOrigin
from trl_prune.trainers.teachers.tokenizer_check import check_tokenizers


class LocalKDTrainer(CheckedSFTTrainer):
    """Trainer that repairs a depth-pruned student next to its cuts, by the dense model's states.

    The block before each cut and some behind it get the dense model's state, and learn to give the states that the
    kept blocks after them get in the dense model. Nothing else is trained, and nothing else runs but the dense model
    up to the last of them: no block above, no LM head. A step costs a fraction of one of fine-tuning or
    distillation, which go on from what it leaves.

    Training one part of a model on another's states is blockwise local distillation
    ([2411.19146](https://huggingface.co/papers/2411.19146)); [2403.19135](https://huggingface.co/papers/2403.19135)
    trains a new block in the place of removed ones. Here blocks of the checkpoint are trained, so that it stays an
    ordinary one.

    Change the class name in an SFT script and it works as before. Takes [`~trl.SFTTrainer`]'s arguments, and one more
    by keyword:

    Args:
        teacher_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The dense model. Defaults to the `dense` root in the student's `trl_prune.json`.

    Example:
    ```python
    >>> from trl_prune import LocalKDTrainer

    >>> trainer = LocalKDTrainer(
    ...     model="runs/smollm2/prune/model",
    ...     train_dataset=dataset,
    ... )
    >>> trainer.train()
    ```
    """

    _tag_names = ["trl", "sft", "local-kd", "knowledge-distillation", "pruned"]
    _name = "Local Knowledge Distillation"
    _paper = {
        "title": "Puzzle: Distillation-Based NAS for Inference-Optimized LLMs",
        "id": "2411.19146",
        "citation": None,
    }

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: SFTConfig | TrainingArguments | None = None,
        data_collator: object = None,
        train_dataset: Dataset | IterableDataset | None = None,
        *remaining_args: object,
        teacher_model: str | PreTrainedModel | None = None,
        **kwargs: object,
    ):
        args = convert_config(LocalKDConfig, args, model, "LocalKD")
        named = named_arguments(remaining_args, kwargs)
        train_dataset, args = trainer_rows(model, args, train_dataset, named)
        self.student_origin = StudentOrigin.of(model)
        source = find_teacher(teacher_model, self.student_origin, args.teacher_model_init_kwargs)
        super().__init__(model, args, data_collator, train_dataset, **named)
        check_unsharded(self, "local distillation")
        check_tokenizers(source, self._base_model.config, self._tokenizer)
        self.segments = self._segments(source)
        blocks = decoder_blocks(self._base_model)
        freeze_all_but(self.model, [blocks[block] for segment in self.segments for block in segment.blocks])
        self.teacher = source.load_model(self.args.device, self._base_model)
        norms = next_norms(self.teacher, self.segments)
        patch_forward(self._base_model, self.segments, norms, self.args.hidden_distance)

    def _segments(self, source: TeacherSource) -> list[Segment]:
        """Return the blocks next to the cuts.

        Raises:
            InputError: the student does not say which of the teacher's blocks it has, or lost more than blocks.
        """
        provenance = self.student_origin.provenance_for(source.config)
        if provenance is None:
            raise InputError(
                f"local distillation trains the blocks next to removed ones, and {self.student_origin.name} has no "
                "trl_prune.json that says which of this teacher's blocks it kept"
            )
        others = sorted(set(provenance.keep) - {LAYERS})
        if others:
            raise InputError(
                f"local distillation is for removed blocks, and {self.student_origin.name} also lost units of "
                f"{', '.join(others)}; use KDTrainer"
            )
        num_blocks = source.config.get_text_config().num_hidden_layers
        keep = provenance.keep.get(LAYERS, range(num_blocks))
        return cut_segments(keep, num_blocks, self.args.blocks_after_cut)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Return the distance of student's and teacher's states, the mean over the step's learned positions."""
        labels = inputs["labels"]
        labels[:, 0] = MASKED  # no token predicts it, as in KDTrainer
        inputs = teacher_inputs(self.teacher, inputs)
        with self.accelerator.autocast():
            states = dense_states(self.teacher, inputs, self.segments)
        output = model(**inputs, labels=labels, dense_states=states)
        self._count_tokens(inputs)
        loss = output.loss * self._mean_scale(output.label_mask.sum(), num_items_in_batch)
        return (loss, output) if return_outputs else loss

    def _count_tokens(self, inputs: dict) -> None:
        """Log the number of tokens trained on, as SFTTrainer does; a budget in minutes is measured by it."""
        mode = "train" if self.model.training else "eval"
        if self.model.training:
            # Flattened rows have no padding and no mask.
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            self._total_train_tokens += self.accelerator.gather_for_metrics(mask.sum()).sum().item()
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
