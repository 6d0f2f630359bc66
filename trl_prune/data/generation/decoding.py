"""Decode a batch of prompts token by token; rows that are finished leave the batch."""

import inspect
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.batches import pad
from trl_prune.data.generation.roomy_cache import roomy_cache
from trl_prune.data.generation.sampling import Answer


# Rows leave a batch once this share of it is finished: copying the cache costs about as much as one step.
LEAVING_SHARE = 1 / 8
# Fewer common tokens are read with each row.
MIN_SHARED_TOKENS = 8


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
    eos_ids, batch = end_ids(model.generation_config, tokenizer), _Batch(model, tokenizer, prompts)
    rows, generated = list(range(len(prompts))), [[] for _ in prompts]
    for _ in range(max_new_tokens):
        tokens = choose(batch.next_logits(), rows)
        open_rows = _append(generated, rows, tokens.tolist(), eos_ids)
        if not open_rows:
            break
        if len(open_rows) <= len(rows) * (1 - LEAVING_SHARE):
            tokens, rows = tokens[open_rows], [rows[position] for position in open_rows]
            batch.keep(open_rows)
        batch.feed(tokens[:, None])
    return generated


class _Batch:
    """The next inputs of a batch of rows, and the cache of those before.

    Tokens that all prompts begin with are read once: they come first, then each row's padding and its other tokens.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]):
        self.model, self.cache = model, roomy_cache(model.config)
        # transformers 5.24 renamed the argument.
        self.cache_name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self.mask = torch.ones(1, 0, dtype=torch.long, device=model.device)
        shared = self._shared_tokens(prompts)
        if shared >= MIN_SHARED_TOKENS:
            self.feed(torch.tensor(prompts[:1])[:, :shared])
            self.next_logits()
            self.cache.batch_repeat_interleave(len(prompts))
            prompts = [prompt[shared:] for prompt in prompts]
        rest = pad(prompts, tokenizer, side="left")
        self.mask = self.mask.expand(len(prompts), -1)
        self.feed(rest["input_ids"], rest["attention_mask"])

    def _shared_tokens(self, prompts: Sequence[list[int]]) -> int:
        """Return how many tokens can be read once: no row is read whole, because its last token has its logits."""
        if any(layer.is_sliding for layer in self.cache.layers):  # the padding would count as part of the window
            return 0
        first, last = min(prompts), max(prompts)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        return min(sum(1 for _ in same), min(map(len, prompts)) - 1)

    def feed(self, ids: Tensor, mask: Tensor | None = None) -> None:
        """Append tokens `(rows, tokens)`; those with a mask of 0 are padding."""
        self.ids = ids.to(self.model.device)
        new = torch.ones_like(self.ids) if mask is None else mask.to(self.model.device)
        self.mask = torch.cat([self.mask, new], dim=-1)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -self.ids.shape[1] :]

    def next_logits(self) -> Tensor:
        """Return the logits of each row's next token, `(rows, vocabulary)` in float32."""
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}
        inputs |= {self.cache_name: self.cache, "use_cache": True, "logits_to_keep": 1}
        return self.model(**inputs).logits[:, -1].float()

    def keep(self, positions: list[int]) -> None:
        """Keep the rows at these positions of the batch."""
        kept = torch.tensor(positions, device=self.model.device)
        self.cache.batch_select_indices(kept)
        self.mask = self.mask[kept]


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
