"""Knowledge distillation as a drop-in for TRL's SFTTrainer (arXiv 2407.14679)."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig

from trl_prune.losses.positions import MASKED
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.checked import CheckedSFTTrainer
from trl_prune.trainers.kd.cache_checks import open_cached_teacher
from trl_prune.trainers.kd.checks import (
    check_before_correction,
    check_optimizer,
    check_trainer,
    disable_unused_cross_entropy,
)
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.hidden_loss import HiddenLoss, make_hidden_loss
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.kd.metrics import EVALUATION_ONLY, RunningMeans, metric_sums
from trl_prune.trainers.kd.on_policy import ON_POLICY, OnPolicyBatches
from trl_prune.trainers.kd.output_recorder import OutputRecorder
from trl_prune.trainers.kd.projection import without_projection
from trl_prune.trainers.kd.repeated_examples import EXAMPLE_LENGTHS, LengthCollator, without_repeats
from trl_prune.trainers.kd.student_forward import DistillationBatch, DistillationOutput, patch_forward
from trl_prune.trainers.kd.teacher_correction import correct_teacher
from trl_prune.trainers.kd.training_state import read_state, write_state
from trl_prune.trainers.preparation import trainer_rows
from trl_prune.trainers.sft_arguments import convert_config, named_arguments
from trl_prune.trainers.teachers.cached import KeyedCollator, check_datasets, verify_cache
from trl_prune.trainers.teachers.online import OnlineTeacher, check_finite_logits
from trl_prune.trainers.teachers.shared import shared_teacher
from trl_prune.trainers.teachers.shared_blocks import freeze_shared_blocks, is_above
from trl_prune.trainers.teachers.source import TeacherSource, find_teacher
from trl_prune.trainers.teachers.student_origin import StudentOrigin
from trl_prune.trainers.teachers.tokenizer_check import check_tokenizers


class KDTrainer(CheckedSFTTrainer):
    """Trainer that recovers a pruned student by distillation from its dense teacher.

    Change the class name in an SFT script and it works as before, except that the student learns the teacher's
    distribution at each position where SFT would learn the data's token.

    Takes [`~trl.SFTTrainer`]'s arguments, and one more by keyword:

    Args:
        teacher_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The teacher. Defaults to the `dense` root in the student's `trl_prune.json`.

    Example:
    ```python
    >>> from trl_prune import KDTrainer

    >>> trainer = KDTrainer(
    ...     model="runs/smollm2/prune/model",
    ...     train_dataset=dataset,
    ... )
    >>> trainer.train()
    ```
    """

    _tag_names = ["trl", "sft", "kd", "knowledge-distillation", "pruned"]
    _name = "Knowledge Distillation"
    _paper = {
        "title": "Compact Language Models via Pruning and Knowledge Distillation",
        "id": "2407.14679",
        "citation": None,
    }
    # How many of the student's first blocks do not run, because the teacher computes their states.
    _shared_blocks = 0

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
        args = convert_config(KDConfig, args, model, "KD")
        named = named_arguments(remaining_args, kwargs)
        train_dataset, args = trainer_rows(model, args, train_dataset, named)
        self.student_origin = StudentOrigin.of(model)
        source = None
        if args.teacher_cache is None or teacher_model is not None:
            source = find_teacher(teacher_model, self.student_origin, args.teacher_model_init_kwargs)
        if source is not None and args.teacher_correction is not None and train_dataset is not None:
            check_before_correction(source, model, self.student_origin, args, named.get("processing_class"))
            source = correct_teacher(source, args, train_dataset, named)
        super().__init__(model, args, data_collator, train_dataset, **named)
        check_trainer(self)
        disable_unused_cross_entropy(self)
        if self.padding_free:
            self.data_collator = LengthCollator(self.data_collator)
        self.on_policy = OnPolicyBatches(self.args, self._tokenizer, self.accelerator)
        if self.args.teacher_cache is None:
            self._set_up_online_teacher(source)
        else:
            self._set_up_cached_teacher(source)
        self.hidden_weight = HiddenWeight(self.args.hidden_weight)
        self._train_means, self._eval_means = RunningMeans(), RunningMeans()
        patch_forward(self._base_model)

    def _set_up_online_teacher(self, source: TeacherSource) -> None:
        """Load the teacher."""
        check_tokenizers(source, self._base_model.config, self._tokenizer)
        provenance = self.student_origin.provenance_for(source.config)
        model = None
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if provenance is not None and source.folder is not None and not source.init_kwargs and not is_sharded:
            model = shared_teacher(self.model, source.folder, provenance)
        if model is None:
            model = self._load_teacher(source)
        self.hidden_loss = make_hidden_loss(self._base_model, model, self.args, provenance)
        check_optimizer(self.optimizer, self._base_model)
        if self.args.freeze_shared_blocks:
            self._shared_blocks = self._freeze_shared_blocks(model)
        self.teacher = OnlineTeacher(model, self.accelerator, self._shared_blocks)

    def _load_teacher(self, source: TeacherSource) -> PreTrainedModel:
        """Load a teacher; where blocks are shared as the student was, so that they compute the same states."""
        return source.load_model(self.args.device, self._base_model if self.args.freeze_shared_blocks else None)

    def _freeze_shared_blocks(self, teacher: PreTrainedModel) -> int:
        """Freeze the blocks that are the teacher's own; return how many need not run in the student."""
        count = freeze_shared_blocks(self.model, teacher)
        are_read = not all(is_above(point, count) for point in self.hidden_loss.pairs.student)
        balances_all = getattr(self._base_model.config.get_text_config(), "output_router_logits", False)
        return 0 if are_read or balances_all else count

    def _set_up_cached_teacher(self, source: TeacherSource | None) -> None:
        """Open the teacher cache; a teacher that is also given is compared with the cache and not kept."""
        self.teacher = open_cached_teacher(self.args, self._base_model, self._tokenizer)
        cache, eval_dataset = self.teacher.cache, self.eval_dataset
        eval_datasets = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
        check_datasets(cache, {"train_dataset": self.train_dataset} | eval_datasets, self.padding_free)
        if source is not None:
            verify_cache(cache, self.train_dataset, source.load_model(self.args.device), source.folder)
        if self.args.freeze_shared_blocks:
            # The teacher is in memory for this comparison only.
            dense = source or find_teacher(None, self.student_origin, self.args.teacher_model_init_kwargs)
            freeze_shared_blocks(self.model, self._load_teacher(dense))
        self.data_collator = KeyedCollator(self.data_collator, self.padding_free)
        self.hidden_loss = HiddenLoss()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Return TRL's loss with the distillation's objective in place of the cross-entropy."""
        lengths = inputs.pop(EXAMPLE_LENGTHS, None)
        # The student's own tokens are not to be imitated, only the teacher's distribution after them.
        ce_weight = 0.0 if inputs.get(ON_POLICY) else self.args.ce_weight
        batch = self._distillation_batch(inputs)
        if not self.model.training:
            batch = without_repeats(batch, inputs, lengths, self.accelerator)
        recorder = OutputRecorder(model, batch)
        result = super().compute_loss(recorder, inputs, return_outputs, num_items_in_batch)
        sft_loss, *outputs = result if return_outputs else (result,)
        self._add_metrics(recorder.output, batch, inputs)
        count = recorder.output.label_mask.sum()
        loss = self._objective(recorder.output) * self._mean_scale(count, num_items_in_batch)
        loss = loss + (ce_weight * sft_loss if self._uses_full_logits else sft_loss)
        return (loss, *outputs) if return_outputs else loss

    def _distillation_batch(self, inputs: dict) -> DistillationBatch:
        """Return the teacher's predictions for a batch, with what the student's forward computes from them."""
        is_own = inputs.pop(ON_POLICY, False)
        inputs["labels"][:, 0] = MASKED  # no token predicts it, nor do the virtual tokens of prompt learning
        pairs = self.hidden_loss.pairs
        prediction = self.teacher.predict(inputs, pairs.teacher)
        no_ce = is_own or self._uses_full_logits
        objective = replace(self.args.objective, ce_weight=0.0) if no_ce else self.args.objective
        hidden_loss = self.hidden_loss.for_batch(prediction.states, inputs) if self.hidden_loss.is_used else None
        return DistillationBatch(
            prediction.target,
            objective,
            pairs.student,
            hidden_loss,
            self._shared_blocks,
            prediction.shared_output,
        )

    @property
    def _uses_full_logits(self) -> bool:
        """Whether the cross-entropy comes from one of TRL's paths over full logits, not from the fused head."""
        smoothed = self.label_smoother is not None and self.args.loss_type == "nll"
        return smoothed or self.compute_loss_func is not None

    def _objective(self, output: DistillationOutput) -> Tensor:
        """Return the sum to minimise; in evaluation without the hidden loss, whose weight changes during training."""
        if output.hidden_loss is None or not self.model.training:
            return output.objective
        return output.objective + self.hidden_weight.value * output.hidden_loss

    def _add_metrics(self, output: DistillationOutput, batch: DistillationBatch, inputs: dict) -> None:
        sums = metric_sums(output)
        if not torch.isfinite(sums).all() and isinstance(batch.target, HeadTarget):
            check_finite_logits(batch.target, inputs)
        training = self.model.training
        sums = (self._train_means if training else self._eval_means).add(sums, self.accelerator)
        if training:
            self.hidden_weight.observe(sums, self.args.kd_weight)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Collect a step's batches, and update the weight of the hidden loss for all of them."""
        if self.args.lmbda:
            epoch_iterator = self.on_policy.replaced(epoch_iterator, self.model_wrapped, self.state)
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.hidden_loss.is_used and self.hidden_weight.needs_first_measurement and batches:
            self._measure_losses(batches)
        self.hidden_weight.update()
        return batches, count

    @torch.no_grad()
    def _measure_losses(self, batches: list[dict]) -> None:
        """Measure divergence and hidden loss on the first step's batches, for the first hidden weight."""
        with torch.random.fork_rng(), self.compute_loss_context_manager():
            for batch in batches:
                inputs = self._prepare_inputs(dict(batch))
                inputs.pop(EXAMPLE_LENGTHS, None)
                recorder = OutputRecorder(self.model_wrapped, self._distillation_batch(inputs))
                recorder(**inputs, fused_lm_head=True, use_cache=False)
                sums = self.accelerator.reduce(metric_sums(recorder.output), "sum")
                self.hidden_weight.observe(sums, self.args.kd_weight)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as SFTTrainer does, with the distillation's means since the last log."""
        if self.model.training:
            logs.update(self._pop_metrics(self._train_means, EVALUATION_ONLY))
        super().log(logs, start_time)

    def evaluation_loop(self, *args: object, metric_key_prefix: str = "eval", **kwargs: object) -> EvalLoopOutput:
        """Evaluate or predict as SFTTrainer does, with the distillation's means among the metrics."""
        self._eval_means = RunningMeans()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        metrics = self._pop_metrics(self._eval_means)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        return output

    def _pop_metrics(self, means: RunningMeans, excluded: Collection[str] = ()) -> dict[str, float]:
        metrics = means.pop()
        if not metrics:
            return {}
        metrics |= {"kd_weight": self.args.kd_weight, "hidden_weight": self.hidden_weight.value}
        unused = () if self.hidden_loss.is_used else ("hidden_loss", "hidden_weight")
        return {name: value for name, value in metrics.items() if name not in (*excluded, *unused)}

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as SFTTrainer does, without the projection."""
        super()._save(output_dir, without_projection(state_dict))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as SFTTrainer does; a checkpoint to resume from also gets the state that only training needs."""
        super().save_model(output_dir, _internal_call)
        if self.hidden_loss.is_used and _internal_call and output_dir is not None:
            write_state(self._base_model, self.hidden_weight, Path(output_dir), self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # The state is read here because this also runs under DeepSpeed, which loads the weights itself.
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.hidden_loss.is_used:
            read_state(self._base_model, self.hidden_weight, Path(checkpoint))
