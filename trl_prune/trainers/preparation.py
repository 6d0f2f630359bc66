"""Training rows as TRL's trainer prepares them: one format for all methods, and tokens without the model to train."""

import copy
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory

from datasets import Dataset, Json, concatenate_datasets
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from trl_prune.checkpoints import load_tokenizer, locate
from trl_prune.data.columns import with_columns
from trl_prune.data.formats import FORMAT_COLUMNS, TEMPLATE_COLUMN, answer_index, is_conversational, template_variables
from trl_prune.data.reading import normal_dataset
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.trainers.sft_arguments import use_one_device
from trl_prune.trainers.trl_names import config_model_id


logger = logging.getLogger(__name__)

# The arguments of SFTConfig that determine how rows become tokens.
PREPARATION_ARGS = (
    "assistant_only_loss",
    "chat_template_path",
    "completion_only_loss",
    "dataset_kwargs",
    "dataset_num_proc",
    "dataset_text_field",
    "eos_token",
    "max_length",
    "packing",
    "packing_strategy",
    "pad_token",
    "padding_free",
    "seed",
    "shuffle_dataset",
    "truncation_mode",
    "use_cpu",
)
TEXT_COLUMNS = tuple(name for names in FORMAT_COLUMNS for name in names)
# Where a text is cut off if nothing else is set, in tokens.
DEFAULT_LENGTH = SFTConfig.max_length
# Rows of several sources are packed and shuffled together, after each source is prepared.
UNPACKED_ARGS = {"packing": False, "padding_free": False, "shuffle_dataset": False}
EVERY_TOKEN_ARGS = {"completion_only_loss": False, "assistant_only_loss": False}
# Columns of rows that a trainer prepares in its own way: of images, and of ids that are there already.
NOT_TEXT = {"image", "images", "input_ids"}
# The position of a row while rows of several kinds are prepared apart.
POSITION = "__position__"
# The columns of a prepared row that the trainer's collator reads.
PREPARED_COLUMNS = ("input_ids", "labels", "seq_lengths")


def trainable_rows(
    rows: object, args: SFTConfig, tokenizer: Callable[[], PreTrainedTokenizerBase], answers_only: bool = False
) -> tuple[object, SFTConfig]:
    """Return rows as TRL's trainer can take them, and the arguments to give it with them.

    Rows are normalised (`data.reading.normal_dataset`). TRL takes all rows for what the first one is; rows of several
    kinds are therefore prepared here, each as TRL does it, and come as `input_ids` and `labels`.

    Args:
        rows: a dataset; one that is streamed, tokenised or has images is left as it is.
        args: the trainer's arguments.
        tokenizer: returns the student's; called for rows of several kinds only.
        answers_only: whether the loss of `messages` is on the last answer (`messages_to_prompt_completion`).

    Raises:
        InputError: a row cannot be trained on, or none has a token to learn.
    """
    if not is_prepared_here(rows, args):
        return rows, args
    rows = normal_dataset(rows)
    rows = messages_to_prompt_completion(rows, args) if answers_only else with_chat_template_kwargs(rows, {})
    kinds = _kinds(rows)
    if len(set(kinds)) == 1:
        return rows, args
    unmasked = copy.copy(args)
    unmasked.completion_only_loss, unmasked.assistant_only_loss = None, False
    return _prepared_by_kind(rows, kinds, args, tokenizer()), unmasked


def trainer_rows(
    model: str | PreTrainedModel, args: SFTConfig, train_dataset: object, named: dict, answers_only: bool = False
) -> tuple[object, SFTConfig]:
    """Return the training rows and the arguments of a trainer (`trainable_rows`); evaluation rows change in place.

    Args:
        model: the student, or its folder or hub id.
        args: the trainer's arguments.
        train_dataset: the training rows.
        named: the trainer's other arguments by name.
        answers_only: whether the loss of `messages` is on the last answer.
    """
    if named.get("formatting_func") is not None:
        return train_dataset, args

    def tokenizer() -> PreTrainedTokenizerBase:
        found = named.get("processing_class")
        return found or load_tokenizer(locate(model if isinstance(model, str) else config_model_id(model.config)))

    rows, changed = trainable_rows(train_dataset, args, tokenizer, answers_only)
    # TRL tells from the training rows what evaluation rows are.
    alike = partial(
        _evaluation_rows, args=args, tokenizer=tokenizer, answers_only=answers_only, as_ids=changed is not args
    )
    found = named.get("eval_dataset")
    if isinstance(found, dict):
        named["eval_dataset"] = {name: alike(rows) for name, rows in found.items()}
    elif found is not None:
        named["eval_dataset"] = alike(found)
    return rows, changed


def _evaluation_rows(
    rows: object, args: SFTConfig, tokenizer: Callable[[], PreTrainedTokenizerBase], answers_only: bool, as_ids: bool
) -> object:
    found, _ = trainable_rows(rows, args, tokenizer, answers_only)
    if not as_ids or not is_prepared_here(found, args):
        return found
    return _prepared_by_kind(found, _kinds(found), args, tokenizer())


def is_prepared_here(rows: object, args: SFTConfig) -> bool:
    """Return whether rows are a table in TRL's formats whose preparation is not left to the user or to TRL."""
    if not isinstance(rows, Dataset) or rows.format["type"] == "custom" or len(rows) == 0:
        return False
    names, field = set(rows.column_names), args.dataset_text_field
    is_own = bool(names & NOT_TEXT) or (field != "text" and field in names)
    skips = bool((args.dataset_kwargs or {}).get("skip_prepare_dataset"))
    has_format = "conversations" in names or any(names.issuperset(columns) for columns in FORMAT_COLUMNS)
    return has_format and not is_own and not skips


def _kinds(rows: Dataset) -> list[tuple[str, bool]]:
    return [_kind(row) for row in rows.select_columns([name for name in TEXT_COLUMNS if name in rows.column_names])]


def _kind(row: dict) -> tuple[str, bool]:
    """Return the format of a row and whether it is a conversation, which together decide how TRL prepares it."""
    if row.get("prompt") is not None:
        return "prompt", not isinstance(row["prompt"], str)
    return ("messages", True) if row.get("messages") is not None else ("text", False)


def _prepared_by_kind(
    rows: Dataset, kinds: list[tuple[str, bool]], args: SFTConfig, tokenizer: PreTrainedTokenizerBase
) -> Dataset:
    """Return rows of several kinds as `input_ids` and `labels`, in their order, not packed; other columns are kept."""
    values, parts = {name: getattr(args, name) for name in PREPARATION_ARGS}, []
    names = dict(zip(("prompt", "messages", "text"), FORMAT_COLUMNS, strict=True))
    others = [name for name in rows.column_names if name not in TEXT_COLUMNS]
    for kind in dict.fromkeys(kinds):
        indices = [index for index, other in enumerate(kinds) if other == kind]
        part = rows.select(indices).select_columns([*names[kind[0]], *others]).add_column(POSITION, indices)
        masks = {} if kind[1] else {"assistant_only_loss": False}
        kept = (*others, POSITION)
        parts.append(prepare_rows(part, values | _unpacked(values) | masks, tokenizer, also=kept))
    prepared = concatenate_datasets(parts).sort(POSITION).remove_columns(POSITION)
    report_dropped(len(rows), prepared, args)
    return prepared


def longest_prompt(args: dict) -> int | None:
    """Return the most tokens of a prompt that leave one for its answer; None where none is cut off or it may be."""
    keeps_start = args.get("truncation_mode", SFTConfig.truncation_mode) == "keep_start"
    length = args.get("max_length", SFTConfig.max_length)
    is_split = args.get("packing") and args.get("packing_strategy", SFTConfig.packing_strategy) != "bfd"
    learns_prompts = args.get("assistant_only_loss") or args.get("completion_only_loss") is False
    return None if length is None or not keeps_start or is_split or learns_prompts else length - 1


def count_rows(rows: object, args: SFTConfig) -> int | None:
    """Return the number of rows that TRL is going to prepare; None of rows that it takes as they are."""
    return len(rows) if is_prepared_here(rows, args) else None


def report_dropped(count: int | None, prepared: object, args: SFTConfig) -> None:
    """Say how many rows TRL leaves out because their prompt fills `max_length`, so that nothing of an answer is left.

    Args:
        count: the number of rows before (`count_rows`).
        prepared: the rows after.
        args: the trainer's arguments.

    Raises:
        InputError: no row has a token to learn.
    """
    if count is None:
        return
    if not any(label != MASKED for labels in prepared["labels"] for label in labels[1:]):
        raise InputError(
            f"max_length is {args.max_length}, and the prompts of all {count:,} rows fill it, so that no token of an "
            "answer is left to learn; raise it"
        )
    if not args.packing and len(prepared) < count:
        logger.warning(
            "%d of %d rows are left out: their prompts fill max_length %d, so that no token of an answer is left",
            count - len(prepared),
            count,
            args.max_length,
        )


def messages_to_prompt_completion(dataset: Dataset, args: SFTConfig) -> Dataset:
    """Return `messages` rows as prompt + completion, so that the loss is on the answer only.

    The answer is the assistant's last message with a text or a tool call, in each row by itself; messages after it are
    left out, as are rows without one, whose number is logged. A row that starts with its answer stays a conversation,
    and so do all where the user chose which tokens the loss covers. Their variables of the chat template become what
    TRL can read (`with_chat_template_kwargs`).

    Raises:
        InputError: the column of these variables holds neither objects nor their JSON, or no row has an answer.
    """
    dataset = with_chat_template_kwargs(dataset, {})
    if args.assistant_only_loss or args.completion_only_loss is False or "messages" not in dataset.column_names:
        return dataset
    names = [name for name in (*FORMAT_COLUMNS[0], "messages") if name in dataset.column_names]
    rows = [_split(row) for row in dataset.select_columns(names)]
    kept = [index for index, row in enumerate(rows) if row is not None]
    if not kept:
        raise InputError(f"none of the {len(rows):,} rows has an answer of an assistant's to learn")
    if len(kept) < len(rows):
        logger.warning(
            "%d of %d rows are left out: no message of an assistant's is there to learn",
            len(rows) - len(kept),
            len(rows),
        )
        dataset = dataset.select(kept)
    columns = {name: [rows[index].get(name) for index in kept] for name in (*FORMAT_COLUMNS[0], "messages")}
    used = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    return with_columns(dataset, used, without=["messages"])


def _split(row: dict) -> dict | None:
    """Return a row of messages as prompt and completion, None without an answer; other rows as they are."""
    messages = row["messages"]
    if messages is None:
        return row
    index = answer_index(messages)
    if index is None:
        return None
    answer = messages[index : index + 1]
    return {"prompt": messages[:index], "completion": answer} if index else {"messages": answer}


def with_chat_template_kwargs(rows: Dataset, kwargs: dict[str, object]) -> Dataset:
    """Return rows with their variables of the chat template in the column where TRL looks for them.

    A row's own variables go first, as where its answer was rewritten. TRL fails on a null and would take the nulls
    that Arrow fills the keys of other rows with for values, so the column is JSON, which has neither. Rows of text get
    no such column, since they have no template.

    Args:
        rows: in one of TRL's formats; their column may hold objects, JSON and nulls.
        kwargs: the variables of all rows.

    Raises:
        InputError: the column holds neither objects nor their JSON.
    """
    if TEMPLATE_COLUMN in rows.column_names:
        own = ({TEMPLATE_COLUMN: value} for value in rows[TEMPLATE_COLUMN])
        variables = [template_variables(row, kwargs) for row in own]
        rows = rows.remove_columns(TEMPLATE_COLUMN)
    elif kwargs and is_conversational(rows):
        variables = [kwargs] * len(rows)
    else:
        return rows
    # A date, as YAML reads `date_string: 2024-07-26`, is rendered as its text.
    encoded = [json.dumps(values, default=str) for values in variables]
    return rows.add_column(TEMPLATE_COLUMN, encoded, feature=Json())


def preparation_args(args: dict) -> dict:
    """Return the subset of a trainer's arguments that determines how rows become tokens."""
    return {name: args[name] for name in PREPARATION_ARGS if name in args}


def prepare_rows(
    rows: Dataset,
    args: dict,
    tokenizer: PreTrainedTokenizerBase,
    answers_only: bool = False,
    also: Sequence[str] = (),
) -> Dataset:
    """Return rows tokenised, masked, truncated and packed as a trainer with these arguments does it.

    TRL prepares a dataset in the constructor of its trainer, so one is built around a model of a few hundred weights.

    Args:
        rows: in one of TRL's formats.
        args: arguments of SFTConfig; those that do not affect rows are ignored.
        tokenizer: the student's; as in training, its padding and end-of-sequence tokens may be set.
        answers_only: whether the loss of `messages` is on the last answer, as in a recipe's arms, or on the full
            conversation.
        also: further columns to keep, for rows that are not packed.

    Returns:
        Rows of `input_ids`, `labels` and, where packed, `seq_lengths`, without those whose labels are all masked.
    """
    with TemporaryDirectory() as folder:
        config = SFTConfig(
            folder, report_to="none", bf16=False, gradient_checkpointing=False, **preparation_args(args)
        )
        use_one_device(config)
        rows, config = trainable_rows(rows, config, lambda: tokenizer, answers_only)
        model = _placeholder_model(len(tokenizer))
        trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer)
    prepared = trainer.train_dataset
    return prepared.select_columns([name for name in (*PREPARED_COLUMNS, *also) if name in prepared.column_names])


def prepare_source(rows: Dataset, args: dict, tokenizer: PreTrainedTokenizerBase, every_token: bool) -> Dataset:
    """Return the rows of one source of a mix tokenised, masked and truncated, but not packed.

    A trainer takes rows of several sources as `input_ids` and `labels`, and packs them together.

    Args:
        rows: in one of TRL's formats.
        args: the trainer's arguments.
        tokenizer: the student's.
        every_token: whether the loss is on every token; else it is on answers, or where `args` put it.

    Returns:
        Rows of `input_ids` and `labels`.
    """
    masks = EVERY_TOKEN_ARGS if every_token else {}
    return prepare_rows(rows, args | _unpacked(args) | masks, tokenizer, answers_only=True)


def _unpacked(args: dict) -> dict:
    """Return the arguments that prepare rows for packing: `bfd` truncates to `max_length`, other ways split there."""
    strategy = args.get("packing_strategy", SFTConfig.packing_strategy)
    return UNPACKED_ARGS | ({"max_length": None} if args.get("packing") and strategy != "bfd" else {})


def prepare_numbered(rows: Dataset, args: dict, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return rows tokenised, masked and truncated but not packed, each with the index that it had, as `row`.

    Rows without a token to learn are left out. Arguments are as in `prepare_rows`; the loss is on the answers.
    """
    numbered = rows.remove_columns("row") if "row" in rows.column_names else rows
    numbered = numbered.add_column("row", list(range(len(rows))))
    return prepare_rows(numbered, args | UNPACKED_ARGS, tokenizer, answers_only=True, also=("row",))


def without_masks(args: dict) -> dict:
    """Return a trainer's arguments for prepared rows, which have their labels: TRL refuses to mask tokens of such."""
    return {name: value for name, value in args.items() if name not in EVERY_TOKEN_ARGS}


def _placeholder_model(vocab_size: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **sizes))
