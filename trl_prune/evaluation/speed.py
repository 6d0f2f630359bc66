"""How many times as fast as the dense model a smaller one is, timed in turn, and what its cost allows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.evaluation.efficiency import FLOP_TOKENS, Work
from trl_prune.evaluation.generation_settings import plain_settings
from trl_prune.evaluation.timing import (
    MIN_REPEATS,
    Interval,
    Seconds,
    median_interval,
    repeat_until_narrow,
    speed_up,
)


# A prompt short enough that decoding is what takes the time, and enough new tokens that a call's own cost is little.
DECODE_PROMPT_TOKENS, DECODE_TOKENS = 16, 32
PREFILL, DECODE = "prefill", "decode"
# How a run measures again: a new value is a new measurement, and scores and answers are kept.
AGAIN = " (in a run, with another `evaluate.speed_seconds`)"


@dataclass(frozen=True)
class Speed:
    """A model's speed on this machine.

    Attributes:
        prefill: tokens per second of a prompt of 512 tokens.
        decode: tokens per second of generating 32 tokens of one text with a KV cache.
        weight_bytes: its weights and buffers in memory.
        peak_bytes: the most that its weights, KV cache and activations took together; None on a CPU, where torch does
            not count it.
    """

    prefill: Interval
    decode: Interval
    weight_bytes: int
    peak_bytes: int | None

    @classmethod
    def from_dict(cls, values: Mapping) -> "Speed":
        """Return the speed that `dataclasses.asdict` made into a dictionary."""
        return cls(**values | {name: Interval.from_dict(values[name]) for name in (PREFILL, DECODE)})


@dataclass(frozen=True)
class SpeedComparison:
    """Two models timed in turn.

    Attributes:
        dense: the dense model's speed.
        small: the smaller model's.
        prefill: how many times as fast the smaller model reads a prompt.
        decode: how many times as fast it generates.
    """

    dense: Speed
    small: Speed
    prefill: Interval
    decode: Interval

    @classmethod
    def from_dict(cls, values: Mapping) -> "SpeedComparison":
        """Return the comparison that `dataclasses.asdict` made into a dictionary."""
        intervals = {name: Interval.from_dict(values[name]) for name in (PREFILL, DECODE)}
        return cls(Speed.from_dict(values["dense"]), Speed.from_dict(values["small"]), **intervals)

    @property
    def is_busy(self) -> bool:
        """Whether the repeats differ so much that the machine must have had other work."""
        return self.prefill.is_busy or self.decode.is_busy

    def sentences(self, bound: "Bound") -> list[str]:
        """Return the gains in words, each beside what the smaller model's cost allows."""
        said = [
            f"It decodes {self.decode} as fast as the dense model; the bytes that it reads allow {bound.decode:.2f}x.",
            f"It reads prompts {self.prefill} as fast; its operations allow {bound.prefill:.2f}x.",
        ]
        if self.is_busy:
            said.append(
                "Measured on a busy machine: the repeats differ by more than 10 %; measure again on an idle one"
                f"{AGAIN}."
            )
        if not (self.prefill.is_known and self.decode.is_known):
            said.append(f"{MIN_REPEATS} repeats at least have an interval; measure again for longer{AGAIN}.")
        return said


@dataclass(frozen=True)
class Bound:
    """How many times as fast the smaller model is if its time is proportional to what it computes or reads.

    Attributes:
        prefill: the ratio of operations, which limit prefill.
        decode: the ratio of bytes read for each token, which limit the decoding of one text.
    """

    prefill: float
    decode: float


def speed_bound(dense: Work, small: Work) -> Bound:
    """Return what operations and bytes allow a smaller model of the same dtype, in the calls that are timed."""
    context = DECODE_PROMPT_TOKENS + DECODE_TOKENS / 2
    return Bound(dense.prefill_flops / small.prefill_flops, dense.decode_reads(context) / small.decode_reads(context))


@torch.inference_mode()
def compare_speed(dense: PreTrainedModel, small: PreTrainedModel, seconds: float = 60.0) -> SpeedComparison:
    """Time two models on this machine, in turn: first prefill, then decoding, at batch 1.

    Args:
        dense: the dense model.
        small: the smaller model, on the same device and in the same dtype.
        seconds: about how long the timed repeats take at most; where they are fewer than 6 by then, values have no
            intervals.
    """
    calls, small_calls = speed_calls(dense), speed_calls(small)
    peaks = [_peak_bytes(dense, calls), _peak_bytes(small, small_calls)]
    timed = {name: repeat_until_narrow(calls[name], small_calls[name], seconds / 2) for name in calls}
    gains = {name: speed_up(both["base"], both["other"]) for name, both in timed.items()}
    speeds = [_speed(dense, timed, "base", peaks[0]), _speed(small, timed, "other", peaks[1])]
    return SpeedComparison(*speeds, **gains)


def speed_calls(model: PreTrainedModel, batch_size: int = 1) -> dict[str, Callable[[], Tensor]]:
    """Return the calls that are timed, `{prefill, decode}`, on random tokens of a batch of texts."""
    prompts = torch.randint(
        10, model.config.get_text_config().vocab_size, (batch_size, _prompt_tokens(model)), generator=_generator()
    ).to(model.device)
    short = prompts[:, :DECODE_PROMPT_TOKENS]
    options = {"max_new_tokens": DECODE_TOKENS, "min_new_tokens": DECODE_TOKENS, "do_sample": False, "pad_token_id": 0}
    return {
        PREFILL: lambda: model(prompts, use_cache=True, logits_to_keep=1).logits,
        DECODE: lambda: _generate(model, short, options),
    }


def _generate(model: PreTrainedModel, ids: Tensor, options: dict[str, object]) -> Tensor:
    with plain_settings(model):
        return model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _prompt_tokens(model: PreTrainedModel) -> int:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(FLOP_TOKENS, context or FLOP_TOKENS)


def _speed(model: PreTrainedModel, timed: dict[str, Seconds], name: str, peak_bytes: int | None) -> Speed:
    return Speed(
        prefill=_tokens_per_second(_prompt_tokens(model), timed[PREFILL][name]),
        decode=_tokens_per_second(DECODE_TOKENS, timed[DECODE][name]),
        weight_bytes=model.get_memory_footprint(),
        peak_bytes=peak_bytes,
    )


def _tokens_per_second(tokens: int, seconds: list[float]) -> Interval:
    return median_interval([tokens / value for value in seconds])


def _peak_bytes(model: PreTrainedModel, calls: dict[str, Callable[[], Tensor]]) -> int | None:
    if model.device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    for call in calls.values():
        call()
    # Other models lie in the same memory: what the calls added, and this model's own weights.
    return torch.cuda.max_memory_allocated(model.device) - before + model.get_memory_footprint()
