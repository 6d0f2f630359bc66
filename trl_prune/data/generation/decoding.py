"""Decode a batch of prompts token by token; rows that are finished leave the batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.generation.row_batch import RowBatch
from trl_prune.data.generation.sampling import Answer


# Rows leave a batch once this share of it is finished: copying the cache costs about as much as one step.
LEAVING_SHARE = 1 / 8


# Returns the next token of each row `(rows,)`, given logits `(rows, vocabulary)` in float32 and the rows' indices.
ChooseToken = Callable[[Tensor, Sequence[int]], Tensor]


def greedy(logits: Tensor, rows: Sequence[int]) -> Tensor:  # noqa: ARG001
    """Return the likeliest tokens."""
    return logits.argmax(-1)


class SeededSampling:
    """Samples each row with a generator of its own, so that its tokens do not depend on the rest of the batch.

    The token is the argmax of logits / temperature + Gumbel noise, which has the distribution of the softmax.

    Args:
        seeds: one for each row.
        temperature: above 0.
    """

    def __init__(self, seeds: Sequence[int], temperature: float):
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the sampled tokens; the noise is drawn on the CPU, so that it is the same on every device."""
        noise = torch.empty(logits.shape)
        for values, row in zip(noise, rows, strict=True):
            values.exponential_(generator=self.generators[row])
        return (logits / self.temperature - noise.log().to(logits.device)).argmax(-1)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    choose: ChooseToken = greedy,
) -> list[list[int]]:
    """Return the generated ids of each prompt, the end-of-sequence token included where there is one.

    Args:
        model: a decoder in eval mode.
        tokenizer: its tokenizer.
        prompts: token ids; they are left-padded to one batch.
        max_new_tokens: the maximum number of ids.
        choose: picks the next tokens. Nothing else changes the logits: the penalties and sampling settings of the
            checkpoint's generation config are not applied.
    """
    eos_ids, batch = end_ids(model.generation_config, tokenizer), RowBatch(model, tokenizer, prompts)
    rows, generated = list(range(len(prompts))), [[] for _ in prompts]
    tokens = None
    for _ in range(max_new_tokens):
        if tokens is not None:
            batch.feed(tokens)
        tokens = choose(batch.logits, rows)
        open_rows = _append(generated, rows, tokens.tolist(), eos_ids)
        if not open_rows:
            break
        if len(open_rows) <= len(rows) * (1 - LEAVING_SHARE):
            tokens, rows = tokens[open_rows], [rows[position] for position in open_rows]
            batch.keep(open_rows)
    return generated


def end_ids(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer: those of the generation config and the tokenizer's."""
    configured = config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(index) for index in [*ids, tokenizer.eos_token_id] if index is not None}


def answer_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], eos_ids: set[int]) -> Answer:
    """Return the text of generated ids up to the one that ends an answer."""
    end = next((index for index, token in enumerate(ids) if token in eos_ids), None)
    return Answer(tokenizer.decode(ids[:end], skip_special_tokens=True), end is not None)


def _append(generated: list[list[int]], rows: list[int], tokens: list[int], eos_ids: set[int]) -> list[int]:
    """Append the tokens of rows that are not finished, and return the positions in the batch of those still open."""
    open_rows = []
    for position, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        if generated[row] and generated[row][-1] in eos_ids:
            continue
        generated[row].append(token)
        if token not in eos_ids:
            open_rows.append(position)
    return open_rows
