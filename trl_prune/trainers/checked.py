"""TRL's SFT trainer, which stops where a training would end in nothing: no numbers, or no way to save the model."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, TrainingArguments
from transformers.trainer_utils import SchedulerType
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import is_finite
from trl_prune.errors import InputError, first_line
from trl_prune.trainers.generation_settings import mend_generation_config
from trl_prune.trainers.preparation import count_rows, report_dropped


# Share of the steps in which `warmup_stable_decay` decays, where no number of steps is given.
DECAY_SHARE = 0.2


class CheckedSFTTrainer(SFTTrainer):
    """SFTTrainer that says which rows it leaves out, and stops at the first step whose loss or gradient is no number.

    transformers goes on: its `logging_nan_inf_filter` leaves such losses out of the log, which shows a loss of 0.

    Attributes:
        student_origin: where a student comes from (`teachers.student_origin.StudentOrigin`); None for other models.
    """

    student_origin = None

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: SFTConfig,
        data_collator: object = None,
        train_dataset: Dataset | IterableDataset | None = None,
        **kwargs: object,
    ):
        count = count_rows(train_dataset, args)
        super().__init__(model, args, data_collator, train_dataset, **kwargs)
        report_dropped(count, self.train_dataset, args)
        mend_generation_config(self._base_model)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Set up the scheduler as SFTTrainer does; `warmup_stable_decay` need not be told its decay's length."""
        given = self.args.lr_scheduler_kwargs
        self.args.lr_scheduler_kwargs = scheduler_kwargs(self.args, num_training_steps)
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        finally:  # another training with these arguments may have other steps
            self.args.lr_scheduler_kwargs = given

    @property
    def _base_model(self) -> PreTrainedModel:
        """The model outside any PEFT wrapper."""
        return self.model.get_base_model() if is_peft_model(self.model) else self.model

    def training_step(self, *args: object, **kwargs: object) -> Tensor:
        """Train on a batch as SFTTrainer does.

        Raises:
            InputError: its loss is NaN or infinite.
        """
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss).all():
            raise InputError(self._stopped("loss", loss.item()))
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        """Return the gradient's norm before clipping, as transformers logs it.

        Raises:
            InputError: it is NaN or infinite. With float16 the loss scaler skips such steps itself.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        scales_loss = self.accelerator.scaler is not None or self.is_deepspeed_enabled
        if norm is not None and not scales_loss and not torch.isfinite(torch.as_tensor(norm)):
            raise InputError(self._stopped("gradient norm", float(norm)))
        return norm

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as SFTTrainer does, with a copy of the student's provenance."""
        super()._save(output_dir, state_dict)
        if self.args.should_save and self.student_origin is not None:
            self.student_origin.copy_provenance(Path(output_dir or self.args.output_dir))

    def _mean_scale(self, count: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Return the factor from a batch's sum to its share of the mean over the step's learned tokens.

        Args:
            count: the batch's learned tokens.
            num_items_in_batch: the step's, where the Trainer has counted them.
        """
        total = count if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        ranks = self.accelerator.num_processes // self.get_tp_size()
        # `num_items_in_batch` counts all ranks' tokens then, and DDP averages gradients over the ranks.
        counts_all_ranks = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return (ranks if counts_all_ranks else 1) / total.clamp(min=1)

    def _stopped(self, what: str, value: float) -> str:
        """Return the sentence for a value that is no number, with the weight that is none where there is one."""
        shards = self.is_fsdp_enabled or self.is_deepspeed_enabled
        weights = [] if shards else self._base_model.named_parameters()
        name = next((name for name, weight in weights if not is_finite(weight)), None)
        reason = (
            f"the weight {name} has values that are NaN or infinite"
            if name
            else f"lower args.learning_rate ({self.args.learning_rate:g}), or look for values too large for "
            f"{'bfloat16' if self.args.bf16 else 'float16' if self.args.fp16 else 'float32'}"
        )
        return f"training stopped at step {self.state.global_step + 1}, whose {what} is {value}: {reason}"

    def check_saving(self) -> None:
        """Save the configs and the tokenizer to a temporary folder, before a training whose model they are saved with.

        Raises:
            InputError: one of them cannot be saved.
        """
        model = self._base_model
        generation = [model.generation_config] if model.can_generate() else []
        with TemporaryDirectory() as folder:
            for part in (model.config, *generation, self.processing_class):
                try:
                    part.save_pretrained(folder)
                except Exception as error:  # each class raises errors of its own
                    raise InputError(
                        f"the {type(part).__name__} of {model.config.name_or_path} cannot be saved, and no trained "
                        f"model could be: {first_line(error)}"
                    ) from error


def scheduler_kwargs(args: TrainingArguments, steps: int) -> dict:
    """Return the scheduler's arguments, with the number of decaying steps that `warmup_stable_decay` requires."""
    kwargs = dict(args.lr_scheduler_kwargs or {})
    if args.lr_scheduler_type == SchedulerType.WARMUP_STABLE_DECAY and "num_decay_steps" not in kwargs:
        left = steps - args.get_warmup_steps(steps)
        stable = kwargs.get("num_stable_steps")
        kwargs["num_decay_steps"] = max(left - stable if stable else min(round(DECAY_SHARE * steps), left), 0)
    return kwargs
