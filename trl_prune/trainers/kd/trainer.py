"""Knowledge distillation as a drop-in for TRL's SFTTrainer (arXiv 2407.14679)."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import Provenance
from trl_prune.losses.positions import MASKED
from trl_prune.losses.targets import HeadTarget
from trl_prune.trainers.kd.cache_checks import cached_teacher
from trl_prune.trainers.kd.checks import (
    check_arguments,
    check_before_correction,
    check_optimizer,
    disable_unused_cross_entropy,
)
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.kd.hidden_term import HiddenTerm, hidden_term
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.kd.metrics import IN_EVALUATION, Totals, mask_repeats, sums_of
from trl_prune.trainers.kd.state import read_state, without_projection, write_state
from trl_prune.trainers.kd.student_forward import (
    DistillationBatch,
    DistilledOutput,
    patch_forward,
    without_cross_entropy,
)
from trl_prune.trainers.kd.teacher_correction import corrected
from trl_prune.trainers.sft_arguments import by_name, own_config
from trl_prune.trainers.teachers.cached import KeyedCollator, check_alignment, check_datasets
from trl_prune.trainers.teachers.online import (
    OnlineTeacher,
    TeacherSource,
    check_finite_target,
    check_tokenizers,
    find_teacher,
)
from trl_prune.trainers.teachers.origins import carry_provenance, checkpoint_of, provenance_of
from trl_prune.trainers.teachers.shared import shared_teacher


class KDTrainer(SFTTrainer):
    """Trainer that recovers a pruned student by distillation from its dense teacher.

    Change the class name in an SFT script and it works as before, except that the student learns the teacher's
    distribution at each position where SFT would learn the data's token.

    Takes [`~trl.SFTTrainer`]'s arguments, and one more by keyword:

    Args:
        teacher_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The teacher. Left out, it is the `dense` root in the student's `trl_prune.json`.

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

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: SFTConfig | TrainingArguments | None = None,
        data_collator: object = None,
        train_dataset: Dataset | IterableDataset | None = None,
        *rest: object,
        teacher_model: str | PreTrainedModel | None = None,
        **more: object,
    ):
        args = own_config(KDConfig, args, model, "KD")
        source = None
        if args.teacher_cache is None or teacher_model is not None:
            source = find_teacher(teacher_model, model, args.teacher_model_init_kwargs)
        named = by_name(rest, more)
        if source is not None and args.teacher_correction is not None and train_dataset is not None:
            check_before_correction(source, model, args, named.get("processing_class"))
            source = corrected(source, args, train_dataset, named)
        super().__init__(model, args, data_collator, train_dataset, **named)
        check_arguments(self)
        disable_unused_cross_entropy(self)
        self.provenance_dir = checkpoint_of(model)
        if self.args.teacher_cache is None:
            self._set_up_online_teacher(source, provenance_of(model, source.config))
        else:
            self._set_up_cached_teacher(source)
        self.hidden_weight = HiddenWeight(self.args.hidden_weight)
        self._trained, self._evaluated = Totals(), Totals()
        patch_forward(self._base)

    def _set_up_online_teacher(self, source: TeacherSource, provenance: Provenance | None) -> None:
        """Take a teacher into memory."""
        check_tokenizers(source, self._base.config, self._tokenizer)
        model = self._shared(source, provenance) or source.load(self.args.device)
        self.hidden_term = hidden_term(self._base, model, self.args, provenance)
        check_optimizer(self.optimizer, self._base)
        self.teacher = OnlineTeacher(model, self.accelerator)

    def _shared(self, source: TeacherSource, provenance: Provenance | None) -> PreTrainedModel | None:
        """Return the teacher on the student's own frozen tensors, where that is possible."""
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or provenance is None or source.folder is None or source.init_kwargs:
            return None
        return shared_teacher(self.model, source.folder, provenance)

    def _set_up_cached_teacher(self, source: TeacherSource | None) -> None:
        """Read what the teacher says from a cache; a teacher that was given too is asked for proof and let go."""
        self.teacher = cached_teacher(self.args, self._base, self._tokenizer)
        evaluated = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval_dataset": self.eval_dataset}
        check_datasets(self.teacher.cache, {"train_dataset": self.train_dataset} | evaluated, self.padding_free)
        if source is not None:
            check_alignment(self.teacher.cache, self.train_dataset, source.load(self.args.device), source.folder)
        self.data_collator = KeyedCollator(self.data_collator, self.padding_free)
        self.hidden_term = HiddenTerm()

    @property
    def _base(self) -> PreTrainedModel:
        """The student itself, outside any PEFT wrapper."""
        return self.model.get_base_model() if is_peft_model(self.model) else self.model

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, ModelOutput]:
        """Return TRL's loss, with the distillation's in the place of the cross-entropy."""
        inputs["labels"][:, 0] = MASKED  # no token predicts it, not even the virtual ones of prompt learning
        if not self.model.training:
            mask_repeats(inputs, self.accelerator)
        distillation = self._distillation_batch(inputs)
        recorder = OutputRecorder(model, distillation)
        result = super().compute_loss(recorder, inputs, return_outputs, num_items_in_batch)
        theirs, *outputs = result if return_outputs else (result,)
        self._count(recorder.output, distillation, inputs)
        ours = self._objective(recorder.output) * self._scale(recorder.output, num_items_in_batch)
        loss = ours + (self.args.ce_weight * theirs if self._logits_decide else theirs)
        return (loss, *outputs) if return_outputs else loss

    def _distillation_batch(self, inputs: dict) -> DistillationBatch:
        """Return what the teacher says of a batch."""
        term = self.hidden_term
        target, states = self.teacher.read(inputs, term.pairs.teacher)
        objective = replace(self.args.objective, ce_weight=0.0) if self._logits_decide else self.args.objective
        return DistillationBatch(target, objective, term.pairs.student, term.against(states, inputs) if term else None)

    @property
    def _logits_decide(self) -> bool:
        """Whether the cross-entropy comes from TRL's deprecated paths over full logits."""
        smoothed = self.label_smoother is not None and self.args.loss_type == "nll"
        return smoothed or self.compute_loss_func is not None

    def _objective(self, output: DistilledOutput) -> Tensor:
        """Return what is minimised; evaluation leaves the hidden term out, whose weight moves as training goes on."""
        if output.hidden is None or not self.model.training:
            return output.objective
        return output.objective + self.hidden_weight.value * output.hidden

    def _scale(self, output: DistilledOutput, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Return the factor that makes a batch's sum its part of the mean over the step's learned tokens."""
        count = output.label_mask.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        ranks = self.accelerator.num_processes // self.get_tp_size()
        averaged = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return (ranks if averaged else 1) / count.clamp(min=1)

    def _count(self, output: DistilledOutput, distillation: DistillationBatch, inputs: dict) -> None:
        sums = sums_of(output)
        if not torch.isfinite(sums).all() and isinstance(distillation.target, HeadTarget):
            check_finite_target(distillation.target, inputs)
        training = self.model.training
        total = (self._trained if training else self._evaluated).add(sums, self.accelerator)
        if training:
            self.hidden_weight.observe(total, self.args.kd_weight)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple:
        """Collect a step's batches, and update the weight of the hidden term that holds for all of them."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.hidden_term and self.hidden_weight.is_unknown and batches:
            self._probe(batches)
        self.hidden_weight.update()
        return batches, count

    @torch.no_grad()
    def _probe(self, batches: list[dict]) -> None:
        """Measure both terms on the first step's batches, so that its weight does not depend on their sizes."""
        with torch.random.fork_rng(), self.compute_loss_context_manager():
            for batch in batches:
                inputs = self._prepare_inputs(dict(batch))
                inputs["labels"][:, 0] = MASKED
                output = self.model_wrapped(
                    **inputs, fused_lm_head=True, distillation=self._distillation_batch(inputs), use_cache=False
                )
                sums = self.accelerator.reduce(sums_of(output), "sum")
                self.hidden_weight.observe(sums, self.args.kd_weight)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as SFTTrainer does, with the distillation's means of the steps since the last time beside its own."""
        if self.model.training:
            logs.update(self._means(self._trained, set(IN_EVALUATION)))
        super().log(logs, start_time)

    def evaluation_loop(self, *args: object, metric_key_prefix: str = "eval", **more: object) -> EvalLoopOutput:
        """Evaluate or predict as SFTTrainer does, with the distillation's means among the metrics."""
        self._evaluated = Totals()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **more)
        means = self._means(self._evaluated)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def _means(self, totals: Totals, unasked: Collection[str] = ()) -> dict[str, float]:
        told = totals.take()
        if not told:
            return {}
        told |= {"kd_weight": self.args.kd_weight, "hidden_weight": self.hidden_weight.value}
        absent = () if self.hidden_term else ("hidden_loss", "hidden_weight")
        return {name: value for name, value in told.items() if name not in (*unasked, *absent)}

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as SFTTrainer does, without what only training needs, and carry the provenance on."""
        super()._save(output_dir, without_projection(state_dict))
        if self.args.should_save:
            carry_provenance(self.provenance_dir, Path(output_dir or self.args.output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as SFTTrainer does; a checkpoint to go on from also gets what only training needs."""
        super().save_model(output_dir, _internal_call)
        if self.hidden_term and _internal_call and output_dir is not None:
            write_state(self._base, self.hidden_weight, Path(output_dir), self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Here, where DeepSpeed comes by as well: it loads weights by itself.
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.hidden_term:
            read_state(self._base, self.hidden_weight, Path(checkpoint))


class OutputRecorder:
    """The model as TRL's loss calls it: it hands on the distillation, and remembers the answer."""

    def __init__(self, model: nn.Module, distillation: DistillationBatch):
        self._model, self._distillation_batch = model, distillation
        self._learns = torch.is_grad_enabled()
        self.output: DistilledOutput | None = None

    def __call__(self, fused_lm_head: bool = False, **inputs: object) -> ModelOutput:
        """Call the model; TRL sees no cross-entropy in what comes back."""
        if not fused_lm_head:
            return self._model(**inputs)
        # Where full logits decide the cross-entropy, TRL wants of this call metrics only, but we want the gradient.
        with torch.set_grad_enabled(self._learns):
            self.output = self._model(**inputs, fused_lm_head=True, distillation=self._distillation_batch)
        return without_cross_entropy(self.output)
