"""Answers by transformers: batches in the planned order."""

import gc
from collections.abc import Iterator, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.batches import pad
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.teacher import LazyTeacher


class TransformersEngine:
    """Generates with a model in this process.

    Args:
        teacher: the model; it is loaded when the first answer is generated.
        continuous: whether to use continuous batching; by default if the model is on a CUDA device.
    """

    def __init__(self, teacher: LazyTeacher, continuous: bool | None = None):
        self.teacher, self.continuous = teacher, continuous
        self.fingerprint = teacher.fingerprint
        self._model: PreTrainedModel | None = None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        """Yield the answers of each batch, by the indices of its prompts."""
        if prompts and self._model is None:
            self._model = self.teacher.load()
        for start in range(0, len(prompts), sampling.batch_size):
            batch = [prompt.ids for prompt in prompts[start : start + sampling.batch_size]]
            answers = generate_batch(self._model, self.teacher.tokenizer, batch, sampling)
            yield dict(enumerate(answers, start))

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Answer]:
    """Return one answer per prompt, generated in one left-padded batch."""
    inputs = {name: tensor.to(model.device) for name, tensor in pad(prompts, tokenizer, side="left").items()}
    eos_ids = eos_token_ids(model, tokenizer)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=sorted(eos_ids),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(eos_ids),
    )
    output = model.generate(**inputs, generation_config=config)
    completions = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [answer_of(tokenizer, ids, eos_ids) for ids in completions]


def eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that end an answer: those of the model's generation config and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {int(index) for index in [*ids, tokenizer.eos_token_id] if index is not None}


def answer_of(tokenizer: PreTrainedTokenizerBase, ids: list[int], eos_ids: set[int]) -> Answer:
    """Return the text of generated ids up to the first that ends an answer."""
    end = next((index for index, token in enumerate(ids) if token in eos_ids), None)
    return Answer(tokenizer.decode(ids[:end], skip_special_tokens=True), end is not None)
