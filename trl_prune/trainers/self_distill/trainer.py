"""Self-data distillation as a drop-in for TRL's SFTTrainer (arXiv 2410.09982)."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import fingerprint, load_tokenizer, locate, weights_fingerprint
from trl_prune.data.formats import conversation
from trl_prune.data.generation import Sampling
from trl_prune.data.rewriting.acceptance import acceptance, is_rewritten
from trl_prune.data.rewriting.rewrite import rewrite_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.trainers.self_distill.answer_positions import skip_masked_positions
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.sft_arguments import by_name, own_config
from trl_prune.trainers.teachers.origins import carry_provenance, checkpoint_of, dense_of
from trl_prune.trainers.trl_names import config_model_id


logger = logging.getLogger(__name__)


class SelfDistillSFTTrainer(SFTTrainer):
    """Trainer for self-data distillation: SFT on answers that the unpruned model wrote itself.

    Change the class name in an SFT script and it works as before, except that the dense model first rewrites the
    training answers; each is kept where it is sound and agrees with the reference, else the reference stays. The loss
    is on the answer only, unless `completion_only_loss=False`. Evaluation data is never rewritten.

    Takes [`~trl.SFTTrainer`]'s arguments, and one more by keyword:

    Args:
        teacher_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The dense model. Left out, it is the `dense` root in the student's `trl_prune.json`.

    Example:
    ```python
    >>> from trl_prune import SelfDistillSFTTrainer

    >>> trainer = SelfDistillSFTTrainer(
    ...     model="runs/smollm2/prune/model",
    ...     train_dataset=dataset,  # prompt + completion or messages
    ... )
    >>> trainer.train()
    ```
    """

    _tag_names = ["trl", "sft", "self-data-distillation", "pruned"]
    _name = "Self-Data Distillation"
    _paper = {
        "title": "Self-Data Distillation for Recovering Quality in Pruned Large Language Models",
        "id": "2410.09982",
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
        args = own_config(SelfDistillSFTConfig, args, model, "SelfDistillSFT")
        named = by_name(rest, more)
        self.provenance_dir = checkpoint_of(model)
        if _is_rewritable(train_dataset, args, named.get("formatting_func") is not None):
            if not is_rewritten(train_dataset.column_names):
                teacher = teacher_of(teacher_model, model, named.get("processing_class"), args)
                train_dataset = self._rewritten(train_dataset, teacher, args)
            train_dataset = messages_to_prompt_completion(train_dataset, args)
            named["eval_dataset"] = _each(
                named.get("eval_dataset"), lambda rows: messages_to_prompt_completion(rows, args)
            )
        super().__init__(model, args, data_collator, train_dataset, **named)
        skip_masked_positions(self.model.get_base_model() if is_peft_model(self.model) else self.model)

    def _rewritten(self, dataset: Dataset, teacher: LazyTeacher, args: SelfDistillSFTConfig) -> Dataset:
        state = args.distributed_state
        share = ProcessShare(
            state.process_index, state.num_processes, state.wait_for_everyone, _progress(state.is_main_process)
        )
        sampling = Sampling(args.rewrite_max_new_tokens, args.rewrite_batch_size, args.rewrite_temperature, args.seed)
        cache = Path(args.rewrite_cache_dir or Path(args.output_dir) / "rewrites")
        rows = rewrite_rows(dataset, teacher, sampling, cache, share)
        self.acceptance = acceptance(list(rows))
        logger.info("rewritten: %.0f %% of %d rows", 100 * self.acceptance["all"]["acceptance_rate"], len(rows))
        return rows

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as SFTTrainer does, and carry the provenance on."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            carry_provenance(self.provenance_dir, Path(output_dir or self.args.output_dir))


def _is_rewritable(dataset: Dataset | IterableDataset | None, args: SelfDistillSFTConfig, formatted: bool) -> bool:
    if args.rewrite is False or dataset is None:
        return False
    reason = _reason_not(dataset, formatted)
    if reason is None:
        return True
    if args.rewrite == "require":
        raise ValueError(f"rewrite='require', but {reason}")
    logger.warning("The answers are not rewritten, training goes on with the dataset as it is: %s", reason)
    return False


def _reason_not(dataset: Dataset | IterableDataset, formatted: bool) -> str | None:
    if not isinstance(dataset, Dataset):
        return f"the dataset is a {type(dataset).__name__}; a `Dataset` can be rewritten, a stream cannot"
    if formatted:
        return "`formatting_func` decides the text of each row"
    columns = dataset.column_names
    if "input_ids" in columns:
        return "the dataset is tokenised already"
    if {"image", "images"} & set(columns):
        return "the dataset has images"
    if not ({"prompt", "completion"} <= set(columns) or "messages" in columns):
        return f"its columns are {', '.join(columns)}; wanted: prompt + completion, or messages"
    return None


def messages_to_prompt_completion(dataset: Dataset, args: SFTConfig) -> Dataset:
    """Return `messages` rows as prompt + completion, so that the loss is on the answer only.

    Rows stay as they are where the user chose the loss's place, or where some row ends on no assistant's text.
    """
    chosen = args.assistant_only_loss or args.completion_only_loss is False
    if chosen or not isinstance(dataset, Dataset) or "messages" not in dataset.column_names:
        return dataset
    if any(conversation(row) is None for row in dataset):
        logger.warning("Some rows do not end on an assistant's text, so the loss is on whole conversations")
        return dataset

    def split(row: dict) -> dict:
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}

    return dataset.map(split, remove_columns=["messages"])


def _each(datasets: object, change: object) -> object:
    if isinstance(datasets, dict):
        return {name: change(rows) for name, rows in datasets.items()}
    return None if datasets is None else change(datasets)


def _progress(shown: bool) -> Callable[[list], Iterable]:
    return lambda batches: tqdm(batches, desc="rewrite", unit="batch", disable=not shown)


def teacher_of(
    teacher: str | PreTrainedModel | None, student: object, processing_class: object, args: SelfDistillSFTConfig
) -> LazyTeacher:
    """Return the teacher that was given, or the student's dense root.

    Raises:
        ValueError: none was given and the student has no provenance.
    """
    if isinstance(teacher, PreTrainedModel):
        tokenizer = processing_class or load_tokenizer(locate(config_model_id(teacher.config)))
        return LazyTeacher(lambda: teacher.eval(), tokenizer, weights_fingerprint(teacher))
    told = {"dtype": "auto"} | (args.teacher_model_init_kwargs or {})
    folder = (
        dense_of(student, "set `rewrite=False`") if teacher is None else locate(teacher, told.pop("revision", None))
    )
    mark = f"{fingerprint(folder)} {told}"
    return LazyTeacher(lambda: _loaded(folder, told, args.device), load_tokenizer(folder), mark)


def _loaded(folder: Path, told: dict, device: object) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, **told).eval()
    return model if "device_map" in told else model.to(device)
