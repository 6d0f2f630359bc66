"""Training rows as TRL's trainer prepares them: one format for all methods, and tokens without the model to train."""

import json
import logging
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from datasets import Dataset, Json
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from trl_prune.data.formats import TEMPLATE_COLUMN, is_conversational, prompt_and_answer, template_variables
from trl_prune.trainers.sft_arguments import use_one_device


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
# Rows of several sources are packed and shuffled together, after each source is prepared.
UNPACKED_ARGS = {"packing": False, "padding_free": False, "shuffle_dataset": False}
EVERY_TOKEN_ARGS = {"completion_only_loss": False, "assistant_only_loss": False}
# The columns of a prepared row that the trainer's collator reads.
PREPARED_COLUMNS = ("input_ids", "labels", "seq_lengths")


def messages_to_prompt_completion(dataset: Dataset, args: SFTConfig) -> Dataset:
    """Return `messages` rows as prompt + completion, so that the loss is on the answer only.

    Rows are left as they are where the user chose which tokens the loss covers, or where any row does not end on an
    assistant's text. Their variables of the chat template become what TRL can read (`with_chat_template_kwargs`).

    Raises:
        InputError: the column of these variables holds neither objects nor their JSON.
    """
    if isinstance(dataset, Dataset):
        dataset = with_chat_template_kwargs(dataset, {})
    user_decides = args.assistant_only_loss or args.completion_only_loss is False
    if user_decides or not isinstance(dataset, Dataset) or "messages" not in dataset.column_names:
        return dataset
    if any(prompt_and_answer(row) is None for row in dataset):
        logger.warning("Some rows do not end on an assistant's text, so the loss covers the full conversations")
        return dataset

    def split(row: dict) -> dict:
        return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}

    return dataset.map(split, remove_columns=["messages"])


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
        rows = messages_to_prompt_completion(rows, config) if answers_only else rows
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
    strategy = args.get("packing_strategy", SFTConfig.packing_strategy)
    # Packing by `bfd` truncates to `max_length`, the other strategies split there.
    length = {"max_length": None} if args.get("packing") and strategy != "bfd" else {}
    masks = EVERY_TOKEN_ARGS if every_token else {}
    return prepare_rows(rows, args | UNPACKED_ARGS | length | masks, tokenizer, answers_only=True)


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
