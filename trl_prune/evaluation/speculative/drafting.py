"""Decode with and without a draft by transformers' `generate`, and count what the target accepted.

transformers does not report acceptance; the inputs of the target's calls and the text that results tell it: a call's
candidates are accepted as far as they equal the text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, TemperatureLogitsWarper

from trl_prune.errors import InputError
from trl_prune.evaluation.generation_settings import settings_of
from trl_prune.evaluation.speculative.prediction import Rounds


@dataclass(frozen=True)
class Decoding:
    """How text is decoded. Sampling settings and penalties of a checkpoint's generation config are not applied.

    Attributes:
        max_new_tokens: the most tokens of a continuation.
        end_ids: the ids that end one.
        temperature: 0 for greedy decoding.
        seed: of sampling.
    """

    max_new_tokens: int
    end_ids: tuple[int, ...] = ()
    temperature: float = 0.0
    seed: int = 0

    @property
    def config(self) -> GenerationConfig:
        """The config for `generate`: plain sampling without a temperature, or the likeliest token."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.end_ids) or None,
            pad_token_id=0,
            **({"do_sample": True, "top_k": 0, "top_p": 1.0} if self.temperature else {"do_sample": False}),
        )

    @property
    def processors(self) -> LogitsProcessorList:
        """The temperature, which both models apply.

        From the config transformers 5.24 applies it to the draft's logits twice; texts stay right and fewer tokens are
        accepted.
        """
        needed = self.temperature not in (0, 1)
        return LogitsProcessorList([TemperatureLogitsWarper(self.temperature)] if needed else [])


@dataclass(frozen=True)
class DraftedText:
    """A continuation that was decoded with a draft.

    Attributes:
        ids: its token ids.
        rounds: of each call of the target, how many tokens the draft proposed and how many were accepted.
    """

    ids: list[int]
    rounds: list[tuple[int, int]]

    def counts(self, draft_length: int) -> Rounds:
        """Return what was judged and accepted at each position in the draft."""
        proposed, accepted = [0] * draft_length, [0] * draft_length
        for candidates, kept in self.rounds:
            for position in range(min(kept + 1, candidates)):
                proposed[position] += 1
                accepted[position] += position < kept
        return Rounds(len(self.ids), len(self.rounds), tuple(proposed), tuple(accepted))


def generate_plain(target: PreTrainedModel, prompt: list[int], decoding: Decoding) -> list[int]:
    """Return the token ids of a continuation without a draft."""
    with settings_of(target, decoding.config):
        return _generate(target, prompt, decoding)


def generate_drafted(
    target: PreTrainedModel, draft: PreTrainedModel, prompt: list[int], decoding: Decoding, draft_length: int
) -> DraftedText:
    """Return a continuation that is decoded with a draft.

    Every round proposes `draft_length` tokens: the schedule is constant and drafts are not cut where the draft is
    unsure, which transformers does by default.

    Raises:
        InputError: both models are one object, or their embeddings have different sizes.
    """
    check_pair(target, draft)
    assistant = GenerationConfig(
        num_assistant_tokens=draft_length,
        num_assistant_tokens_schedule="constant",
        assistant_confidence_threshold=0.0,
    )
    with settings_of(target, decoding.config), settings_of(draft, assistant), _inputs_of(target) as inputs:
        ids = _generate(target, prompt, decoding, assistant_model=draft)
    return DraftedText(ids, _rounds([part[0].tolist() for part in inputs], prompt, ids))


def check_pair(target: PreTrainedModel, draft: PreTrainedModel) -> None:
    """Check that transformers can decode with a draft.

    Raises:
        InputError: it cannot.
    """
    if target is draft:
        raise InputError("target and draft are one model in memory; load the draft apart")
    if not have_equal_embeddings(target, draft):
        sizes = [embedding_size(model) for model in (target, draft)]
        raise InputError(
            f"the target's embedding has {sizes[0]} rows and the draft's {sizes[1]}, and transformers decodes with a "
            "draft only where both are equal; pad one of them (`resize_token_embeddings`)"
        )


def have_equal_embeddings(target: PreTrainedModel, draft: PreTrainedModel) -> bool:
    """Return whether both models' vocabularies are padded to one size."""
    return embedding_size(target) == embedding_size(draft)


def embedding_size(model: PreTrainedModel) -> int:
    """Return the number of ids of a model, those that pad its embedding included."""
    return model.config.get_text_config().vocab_size


def _generate(target: PreTrainedModel, prompt: list[int], decoding: Decoding, **options: object) -> list[int]:
    ids = torch.tensor([prompt], device=target.device)
    devices = [target.device] if target.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(decoding.seed)
        options |= {"attention_mask": torch.ones_like(ids), "logits_processor": decoding.processors}
        output = target.generate(ids, **options)
    return output[0, len(prompt) :].tolist()


@contextmanager
def _inputs_of(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect the `input_ids` of every call of a model."""
    found: list[Tensor] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, arguments: found.append(arguments["input_ids"]), with_kwargs=True
    )
    try:
        yield found
    finally:
        hook.remove()


def _rounds(inputs: Sequence[list[int]], prompt: list[int], ids: list[int]) -> list[tuple[int, int]]:
    """Return proposed and accepted tokens of each call, from what the calls read and the text that resulted.

    The first call reads the prompt and its candidates, each other one the last token and its candidates. A token that
    replaces a rejected one is never equal to it, because its probability is that by which the target's exceeds the
    draft's.
    """
    rounds, position = [], 0
    for index, read in enumerate(inputs):
        candidates = read[len(prompt) :] if index == 0 else read[1:]
        pairs = zip(candidates, ids[position:], strict=False)
        accepted = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        rounds.append((len(candidates), accepted))
        position += accepted + 1
    return rounds


@dataclass(frozen=True)
class Difference:
    """Where greedy decoding with a draft left the target's own text.

    Attributes:
        prompt: index of the prompt.
        draft_length: tokens proposed in a round.
        position: index in the continuation of the first token that differs.
        logit_gap: how much larger the target's logit of its own token is than that of the other; about 0 if both tie
            and the order of additions decides, None where one text only ends earlier.
    """

    prompt: int
    draft_length: int
    position: int
    logit_gap: float | None


@torch.inference_mode()
def first_difference(
    target: PreTrainedModel, prompt: list[int], own: list[int], drafted: list[int]
) -> tuple[int, float | None] | None:
    """Return position and logit gap of the first token in which two continuations differ, None if they are equal."""
    if own == drafted:
        return None
    pairs = zip(own, drafted, strict=False)
    position = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    if position >= min(len(own), len(drafted)):
        return position, None
    ids = torch.tensor([prompt + own[:position]], device=target.device)
    logits = target(input_ids=ids, use_cache=False).logits[0, -1].float()
    return position, float(logits[own[position]] - logits[drafted[position]])
