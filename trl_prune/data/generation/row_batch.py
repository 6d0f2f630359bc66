"""The rows of a batch: their tokens are read into a cache, and those that are finished leave it."""

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import cache_argument
from trl_prune.data.batches import pad
from trl_prune.data.generation.roomy_cache import can_join, joined, roomy_cache


# Fewer common tokens are read with each row.
MIN_SHARED_TOKENS = 8
# Tokens of prompts that are read at once.
READ_TOKENS = 4096


class RowBatch:
    """A batch of rows: the cache of what was read, and the logits that follow.

    Tokens that all prompts begin with are read once. They come first, then each row's padding and its other tokens.

    Attributes:
        logits: of each row's next token, `(rows, vocabulary)` in float32.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]):
        self.model = model
        self.cache_name = cache_argument(model)
        beginning = roomy_cache(model.config)
        is_whole = not can_join(beginning)  # with a sliding window, padding between tokens would count as part of it
        shared = 0 if is_whole else _shared_tokens(prompts)
        mask = torch.ones(1, shared, dtype=torch.long, device=model.device)
        if shared:
            self._read(torch.tensor(prompts[:1])[:, :shared], mask, beginning)
        rest = pad([prompt[shared:] for prompt in prompts], tokenizer, side="left")
        self.mask = torch.cat([mask.expand(len(prompts), -1), rest["attention_mask"].to(model.device)], dim=-1)
        # The states of a whole batch of long prompts take more memory than its cache, and time to allocate.
        size = len(prompts) if is_whole else max(READ_TOKENS // rest["input_ids"].shape[1], 1)
        parts, logits = [], []
        for ids, part_mask in zip(rest["input_ids"].split(size), self.mask.split(size), strict=True):
            parts.append(copy.deepcopy(beginning))
            parts[-1].batch_repeat_interleave(len(ids))
            logits.append(self._read(ids, part_mask, parts[-1]))
        self.cache, self.logits = joined(parts), torch.cat(logits)

    def feed(self, tokens: Tensor) -> None:
        """Read one more token of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self.logits = self._read(tokens[:, None], self.mask, self.cache)

    def keep(self, positions: list[int]) -> None:
        """Keep the rows at these positions of the batch."""
        kept = torch.tensor(positions, device=self.model.device)
        self.cache.batch_select_indices(kept)
        self.mask = self.mask[kept]

    def _read(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Add tokens to a cache and return the logits after the last, given the mask of all tokens up to it."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        inputs = {"input_ids": ids.to(mask.device), "attention_mask": mask, "position_ids": positions}
        inputs |= {self.cache_name: cache, "use_cache": True, "logits_to_keep": 1}
        return self.model(**inputs).logits[:, -1].float()


def _shared_tokens(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens to read once: not a prompt's last one, whose logits each row needs."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(min(prompts), max(prompts), strict=False))
    shared = min(sum(1 for _ in same), min(map(len, prompts)) - 1)
    return shared if shared >= MIN_SHARED_TOKENS else 0
