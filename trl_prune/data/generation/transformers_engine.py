"""Answers by transformers: a decode loop over planned batches, or on a GPU its continuous batching."""

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.generation.continuous import continuous_batching_config, generate_continuously
from trl_prune.data.generation.decoding import ChooseToken, SeededSampling, answer_of, decode, end_ids, greedy
from trl_prune.data.generation.engine import in_groups
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import answer_seed
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


logger = logging.getLogger(__name__)


class TransformersEngine:
    """Generates with a model in this process.

    Answers are greedy at temperature 0; above, each is sampled with a seed of its own. Neither the penalties nor the
    sampling settings of the checkpoint's generation config are applied; only its end-of-sequence ids are, and the
    tokenizer's. Equal prompts have equal answers in float32, whatever their batches.

    Args:
        teacher: the model; it is loaded when the first answer is generated.
        continuous: whether to use transformers' continuous batching; by default if the model is on a CUDA device and
            answers are greedy. It cannot sample each row with a seed of its own.
        continuous_options: arguments of [`~transformers.ContinuousBatchingConfig`].
    """

    def __init__(
        self,
        teacher: LazyTeacher,
        continuous: bool | None = None,
        continuous_options: Mapping[str, object] | None = None,
    ):
        self.teacher, self.continuous, self.continuous_options = teacher, continuous, dict(continuous_options or {})
        self.fingerprint = teacher.fingerprint
        self._model: PreTrainedModel | None = None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        """Yield groups of `sampling.batch_size` answers, by the indices of their prompts.

        Raises:
            InputError: continuous batching is wanted at a temperature above 0.
        """
        if self.continuous and sampling.temperature > 0:
            raise InputError(
                f"continuous batching was asked for at temperature {sampling.temperature}; it is for temperature 0"
            )
        if not prompts:
            return
        if self._model is None:
            self._model = self.teacher.load()
        if self._is_continuous(sampling):
            yield from self._continuous_groups(prompts, sampling)
        else:
            yield from self._batches(prompts, sampling)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _is_continuous(self, sampling: Sampling) -> bool:
        if self.continuous is None:
            return self._model.device.type == "cuda" and sampling.temperature == 0
        return self.continuous

    def _batches(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        size, start, is_warned = sampling.batch_size, 0, False
        while start < len(prompts):
            batch = prompts[start : start + size]
            try:
                answers = self._batch(batch, sampling)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                size = math.ceil(len(batch) / 2)
                if not is_warned:
                    logger.warning("%d prompts a batch do not fit into memory; going on with fewer", len(batch))
                is_warned = True
                continue
            yield dict(enumerate(answers, start))
            start += len(batch)

    def _batch(self, batch: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        choose = greedy
        if sampling.temperature > 0:
            seeds = [answer_seed(prompt, sampling, self.fingerprint) for prompt in batch]
            choose = SeededSampling(seeds, sampling.temperature)
        return _decoded(self._model, self.teacher.tokenizer, [prompt.ids for prompt in batch], sampling, choose)

    def _continuous_groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        tokenizer, eos_ids = self.teacher.tokenizer, end_ids(self._model.generation_config, self.teacher.tokenizer)
        ids, limit = [prompt.ids for prompt in prompts], sampling.max_new_tokens
        longest = max(map(len, ids)) + limit
        config = continuous_batching_config(self._model, longest, sampling.batch_size, self.continuous_options)
        generated = generate_continuously(self._model, ids, limit, eos_ids, config)
        yield from in_groups(
            ((index, answer_of(tokenizer, row, eos_ids)) for index, row in generated), sampling.batch_size
        )


def generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], sampling: Sampling
) -> list[Answer]:
    """Return one greedy answer per prompt, generated in one batch."""
    return _decoded(model, tokenizer, prompts, sampling, greedy)


def _decoded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    choose: ChooseToken,
) -> list[Answer]:
    eos_ids = end_ids(model.generation_config, tokenizer)
    generated = decode(model, tokenizer, prompts, sampling.max_new_tokens, choose)
    return [answer_of(tokenizer, ids, eos_ids) for ids in generated]
