"""Self-data distillation as a drop-in for TRL's SFTTrainer (arXiv 2410.09982)."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from trl import SFTConfig

from trl_prune.checkpoints import fingerprint, load_tokenizer, locate, weights_fingerprint
from trl_prune.data.generation.engines import build_engine
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.reading import normal_dataset
from trl_prune.data.rewriting.provenance import RECORDS, UNASKED, acceptance_summary, read_records, write_records
from trl_prune.data.rewriting.rewrite import RewrittenDataset, rewrite_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher, context_length
from trl_prune.trainers.checked import CheckedSFTTrainer
from trl_prune.trainers.preparation import is_prepared_here, trainer_rows
from trl_prune.trainers.self_distill.answer_positions import skip_masked_positions
from trl_prune.trainers.self_distill.config import SelfDistillSFTConfig
from trl_prune.trainers.sft_arguments import convert_config, named_arguments
from trl_prune.trainers.teachers.shared_blocks import check_unsharded, freeze_shared_blocks
from trl_prune.trainers.teachers.source import find_teacher
from trl_prune.trainers.teachers.student_origin import StudentOrigin
from trl_prune.trainers.trl_names import config_model_id


logger = logging.getLogger(__name__)

# Arguments of `from_pretrained` that say where a teacher is, not what it writes.
PLACEMENT = (
    "cache_dir",
    "device_map",
    "local_files_only",
    "low_cpu_mem_usage",
    "max_memory",
    "offload_folder",
    "token",
)


class SelfDistillSFTTrainer(CheckedSFTTrainer):
    """Trainer for self-data distillation: SFT on answers that the unpruned model wrote itself.

    Change the class name in an SFT script and it works as before, except that the dense model first rewrites the
    training answers. A rewritten answer is used where it is well-formed and agrees with the reference, else the
    reference is. The loss is on the last answer only: of conversations with `assistant_only_loss` it is on all of the
    assistant's, and of text, as with SFTTrainer, on everything. Evaluation data is never rewritten.

    Takes [`~trl.SFTTrainer`]'s arguments, and one more by keyword:

    Args:
        teacher_model (`str` or [`~transformers.PreTrainedModel`], *optional*):
            The dense model, which is freed before a student given by name is loaded. Defaults to the `dense` root in
            the student's `trl_prune.json`, or without one to the student itself before training.

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
        *remaining_args: object,
        teacher_model: str | PreTrainedModel | None = None,
        **kwargs: object,
    ):
        args = convert_config(SelfDistillSFTConfig, args, model, "SelfDistillSFT")
        named = named_arguments(remaining_args, kwargs)
        self.acceptance: dict | None = None
        self.student_origin = StudentOrigin.of(model)
        formatted = named.get("formatting_func") is not None
        if not formatted and is_prepared_here(train_dataset, args):
            train_dataset = normal_dataset(train_dataset)
        is_rewritten = _is_rewritable(train_dataset, args, formatted)
        if is_rewritten:
            teacher = lazy_teacher(teacher_model, model, self.student_origin, named.get("processing_class"), args)
            train_dataset = self._rewrite(train_dataset, teacher, args)
        train_dataset, args = trainer_rows(model, args, train_dataset, named, answers_only=is_rewritten)
        super().__init__(model, args, data_collator, train_dataset, **named)
        skip_masked_positions(self._base_model)
        if args.freeze_shared_blocks:
            check_unsharded(self)
            source = find_teacher(teacher_model, self.student_origin, args.teacher_model_init_kwargs)
            freeze_shared_blocks(self.model, source.load_model(args.device, self._base_model))

    def _rewrite(self, dataset: Dataset, teacher: LazyTeacher, args: SelfDistillSFTConfig) -> Dataset:
        state = args.distributed_state
        progress = _progress_bar(state.is_main_process)
        share = ProcessShare(state.process_index, state.num_processes, state.wait_for_everyone, progress)
        cache_dir = Path(args.rewrite_cache_dir or Path(args.output_dir) / "rewrites")
        engine = build_engine(args.rewrite_engine, teacher, args.rewrite_engine_kwargs or {})
        generator = AnswerGenerator(engine, teacher.tokenizer, cache_dir, share)
        settings = args.rewrite_settings(teacher.max_model_len)
        result = rewrite_rows(dataset, generator, settings)
        if state.is_main_process:
            cache_dir.mkdir(parents=True, exist_ok=True)
            write_records(result.records, cache_dir / RECORDS)
        state.wait_for_everyone()
        if not state.is_main_process:  # a time limit of tests or comparisons may have struck in one process alone
            result = RewrittenDataset.of(dataset, read_records(cache_dir / RECORDS), settings)
        self.acceptance = acceptance_summary(result.records, dataset)
        _log_acceptance(self.acceptance)
        return result.rows


def _log_acceptance(acceptance: dict) -> None:
    everything, types = acceptance["by_type"]["all"], acceptance["by_type"]
    counts = ", ".join(f"{name} {group['answers']}" for name, group in types.items() if name != "all")
    logger.info(
        "rewritten: %.0f %% of %d answers (%s; types chosen by %s)",
        100 * everything["acceptance_rate"],
        everything["answers"],
        counts,
        ", ".join(acceptance["types_chosen_by"]),
    )
    unasked = {name: everything["reasons"][name] for name in UNASKED if name in everything["reasons"]}
    if unasked:
        reasons = ", ".join(f"{name} {count}" for name, count in unasked.items())
        logger.warning("Some answers cannot be rewritten and are trained on as they are: %s", reasons)


def _is_rewritable(dataset: Dataset | IterableDataset | None, args: SelfDistillSFTConfig, formatted: bool) -> bool:
    if args.rewrite is False or dataset is None:
        return False
    reason = _why_not_rewritable(dataset, args, formatted)
    if reason is None:
        return True
    if args.rewrite == "require":
        raise ValueError(f"rewrite='require', but {reason}")
    logger.warning("The answers are not rewritten; training uses the dataset as it is: %s", reason)
    return False


def _why_not_rewritable(dataset: Dataset | IterableDataset, args: SelfDistillSFTConfig, formatted: bool) -> str | None:
    if not isinstance(dataset, Dataset):
        return f"the dataset is a {type(dataset).__name__}; a `Dataset` can be rewritten, a stream cannot"
    if formatted:
        return "`formatting_func` determines the text of each row"
    columns, field = dataset.column_names, args.dataset_text_field
    wanted = [{"prompt", "completion"}, {"messages"}, *([{"text"}] if args.rewrite_response_template else [])]
    reasons = {
        "the dataset is tokenised already": "input_ids" in columns,
        "the dataset has images": bool({"image", "images"} & set(columns)),
        f"`dataset_text_field` is {field!r}; text is rewritten in the column 'text'": field in {*columns} - {"text"},
        f"its columns are {', '.join(columns)}; wanted: prompt + completion, messages, or text and "
        "`rewrite_response_template`": not any(names <= set(columns) for names in wanted),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def _progress_bar(shown: bool) -> Callable[[list], Iterable]:
    return lambda batches: tqdm(batches, desc="rewrite", unit="batch", disable=not shown)


def lazy_teacher(
    teacher: str | PreTrainedModel | None,
    model: str | PreTrainedModel,
    student: StudentOrigin,
    processing_class: PreTrainedTokenizerBase | None,
    args: SelfDistillSFTConfig,
) -> LazyTeacher:
    """Return the teacher as one that is loaded when it is first used.

    Left out, it is the student's dense root, or the student itself as it is before training (arXiv 2402.13669) if it
    descends from no other model.

    Args:
        teacher: a model, or its folder or hub id.
        model: the student, likewise.
        student: the origin of the student.
        processing_class: the tokenizer of a teacher given as a model; its checkpoint's where None.
        args: for `teacher_model_init_kwargs` and the device.
    """
    if teacher is None and student.provenance is None:
        teacher = model
    source = find_teacher(teacher, student, args.teacher_model_init_kwargs)
    length = context_length(source.config)
    if source.folder is None:
        return LazyTeacher(
            lambda: _placed(source.model.eval(), args),
            processing_class or load_tokenizer(locate(config_model_id(source.model.config))),
            weights_fingerprint(source.model),
            length,
        )
    arguments = source.loading_arguments(args.device)
    determining = {name: value for name, value in sorted(arguments.items()) if name not in PLACEMENT}
    return LazyTeacher(
        lambda: source.load_model(args.device),
        load_tokenizer(source.folder),
        f"{fingerprint(source.folder)} {determining}",
        length,
        source.folder,
    )


def _placed(model: PreTrainedModel, args: SelfDistillSFTConfig) -> PreTrainedModel:
    """Return a model in memory on the device of training, unless accelerate has placed its layers.

    Not frozen, as other teachers are: it may be the student.
    """
    return model if getattr(model, "hf_device_map", None) else model.to(args.device)
