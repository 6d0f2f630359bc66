"""Calibration texts in a model's own words: prompts of training rows, each with the answer that the model gives.

What counts in such a text are the positions where the answer and its end are predicted: the last token of the prompt
and every token of the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.data.batches import pad
from trl_prune.data.formats import Row, template_variables
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Answer
from trl_prune.data.rewriting.requests import row_tools
from trl_prune.data.rewriting.turns import turns
from trl_prune.losses.positions import COUNTED


@dataclass(frozen=True)
class AnsweredPrompt:
    """A prompt with a model's answer.

    Attributes:
        ids: the token ids of both, with the token that ends the answer if it ended.
        counted: the first and the last of the positions that count.
    """

    ids: list[int]
    counted: tuple[int, int]


def row_prompts(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, object], max_tokens: int
) -> list[Prompt]:
    """Return what stands before the last answer of each row; rows without one and too long prompts are left out.

    Args:
        rows: rows in one of TRL's formats.
        tokenizer: the model's tokenizer, whose chat template renders them.
        chat_template_kwargs: variables of the chat template; a row's own column goes first.
        max_tokens: the length of the longest prompt.

    Raises:
        InputError: the chat template rejects a row, or its variables are no object.
    """
    prompts = [_prompt(row, tokenizer, chat_template_kwargs) for row in rows]
    return [prompt for prompt in prompts if prompt is not None and 0 < len(prompt.ids) <= max_tokens]


def _prompt(row: Row, tokenizer: PreTrainedTokenizerBase, chat_template_kwargs: Mapping[str, object]) -> Prompt | None:
    found = turns(row)
    if not found:
        return None
    messages, tools, variables = found[-1].messages, row_tools(row), template_variables(row, chat_template_kwargs)
    ids = prompt_ids(tokenizer, messages, tools=tools, chat_template_kwargs=variables)
    expected = len(tokenizer(found[-1].answer, add_special_tokens=False)["input_ids"])
    return Prompt(ids, messages, "", tools, variables, expected)


def answered(
    prompts: Sequence[Prompt], answers: Sequence[Answer], tokenizer: PreTrainedTokenizerBase
) -> list[AnsweredPrompt]:
    """Return the prompts with their answers, without those that were answered with nothing."""
    texts = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(answer.text, add_special_tokens=False)["input_ids"] if answer.text.strip() else []
        if ids:
            end = [tokenizer.eos_token_id] if answer.finished and tokenizer.eos_token_id is not None else []
            counted = (len(prompt.ids) - 1, len(prompt.ids) + len(ids) - 1)
            texts.append(AnsweredPrompt([*prompt.ids, *ids, *end], counted))
    return texts


def answered_batches(
    texts: Sequence[AnsweredPrompt], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> list[dict[str, torch.Tensor]]:
    """Return padded batches of the texts, longest first, so that the first batch needs the most memory.

    Returns:
        Dicts with `input_ids`, `attention_mask` and COUNTED, each `(batch, tokens)`, padded on the right.
    """
    ordered = sorted(texts, key=lambda text: len(text.ids), reverse=True)
    return [_batch(ordered[start : start + batch_size], tokenizer) for start in range(0, len(ordered), batch_size)]


def _batch(texts: Sequence[AnsweredPrompt], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    batch = pad([text.ids for text in texts], tokenizer)
    positions = torch.arange(batch["input_ids"].shape[1])
    first, last = torch.tensor([text.counted for text in texts]).T[..., None]
    return batch | {COUNTED: (positions >= first) & (positions <= last)}
