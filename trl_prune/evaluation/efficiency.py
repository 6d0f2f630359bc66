"""Size, floating-point operations and measured speed of a model."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel


# The length of the forward pass whose operations are counted.
FLOP_TOKENS = 512


@dataclass(frozen=True)
class Size:
    """A model's parameters and operations, by count.

    Attributes:
        parameters: number of weights; tied ones count once.
        flops_per_token: floating-point operations of a forward pass over 512 tokens, per token (attention included).
    """

    parameters: int
    flops_per_token: float


@dataclass(frozen=True)
class Speed:
    """A model's speed on this machine, in tokens per second.

    Attributes:
        prompt: prefill of a batch of prompts.
        decode: generation of one text with a KV cache.
    """

    prompt: float
    decode: float


def measure_size(meta_model: PreTrainedModel) -> Size:
    """Return the size of a model on the meta device."""
    # Grouped products fail in float32 on some versions of torch, and the counter does not count them.
    meta_model.set_experts_implementation("batched_mm")
    tokens = torch.zeros((1, FLOP_TOKENS), dtype=torch.long, device="meta")
    # With a mask and eager attention the forward reads no values, which meta tensors do not have.
    mask = torch.ones_like(tokens)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta_model(input_ids=tokens, attention_mask=mask, use_cache=False)
    return Size(sum(weight.numel() for weight in meta_model.parameters()), counter.get_total_flops() / FLOP_TOKENS)


@torch.inference_mode()
def measure_speed(model: PreTrainedModel, batch_size: int = 4, tokens: int = 256, new_tokens: int = 16) -> Speed:
    """Return measured tokens per second; the better of two runs, after one warm-up."""
    prompts = torch.randint(10, model.config.vocab_size, (batch_size, tokens), device=model.device)
    options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    short_prompt = prompts[:1, :16]
    mask = torch.ones_like(short_prompt)
    prompt_seconds = _fastest(lambda: model(prompts, use_cache=False, logits_to_keep=1))
    decode_seconds = _fastest(lambda: model.generate(short_prompt, attention_mask=mask, **options))
    return Speed(batch_size * tokens / prompt_seconds, new_tokens / decode_seconds)


def _fastest(function: Callable[[], object], repeats: int = 2) -> float:
    """Return the least seconds of a call, after one warm-up call."""
    function()
    seconds = []
    for _ in range(repeats):
        _synchronise()
        start = time.perf_counter()
        function()
        _synchronise()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def faster_dtype(model: PreTrainedModel) -> str:
    """Return the dtype, `bfloat16` or `float32`, in which a training step is faster on this machine.

    CPUs without AVX512-BF16 or AMX emulate bfloat16 in software, many times slower than float32.
    """
    tokens = torch.randint(10, model.config.vocab_size, (2, 128), device=model.device)

    def step(autocast: bool) -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    float32_seconds = _fastest(lambda: step(False), repeats=1)
    bfloat16_seconds = _fastest(lambda: step(True), repeats=1)
    return "bfloat16" if bfloat16_seconds < float32_seconds else "float32"
