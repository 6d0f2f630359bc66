"""Training rows exactly as TRL's trainer will see them, without the model that it will train."""

from tempfile import TemporaryDirectory

from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from trl_prune.trainers.self_distill.trainer import messages_to_prompt_completion
from trl_prune.trainers.sft_arguments import on_one_device


# The arguments that decide how rows become tokens.
PREPARATION = (
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
# What the trainer collates of a prepared row.
COLUMNS = ("input_ids", "labels", "seq_lengths")


def preparation_args(args: dict) -> dict:
    """Return those of a trainer's arguments that decide how rows become tokens."""
    return {name: args[name] for name in PREPARATION if name in args}


def prepare_rows(rows: Dataset, args: dict, tokenizer: PreTrainedTokenizerBase, answers_only: bool = False) -> Dataset:
    """Return rows tokenised, masked, truncated and packed as a trainer with these arguments does it.

    TRL prepares a dataset while a trainer is built, so one is built, around a stand-in of a few hundred weights.

    Args:
        rows: in one of TRL's formats.
        args: SFTConfig's arguments; those that do not touch rows are ignored.
        tokenizer: the student's; as in training, its padding and end tokens may be set here.
        answers_only: of `messages` the last answer is learned, as arms of a recipe do, not the whole conversation.

    Returns:
        Rows of `input_ids`, `labels` and, where packed, `seq_lengths`.
    """
    with TemporaryDirectory() as folder:
        told = SFTConfig(folder, report_to="none", bf16=False, gradient_checkpointing=False, **preparation_args(args))
        on_one_device(told)
        rows = messages_to_prompt_completion(rows, told) if answers_only else rows
        trainer = SFTTrainer(_stand_in(len(tokenizer)), told, train_dataset=rows, processing_class=tokenizer)
    prepared = trainer.train_dataset
    return prepared.select_columns([name for name in COLUMNS if name in prepared.column_names])


def _stand_in(vocabulary: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes))
