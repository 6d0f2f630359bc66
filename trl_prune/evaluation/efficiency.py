"""Size, arithmetic and measured speed of a model."""

import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel


FLOP_TOKENS = 512


@dataclass(frozen=True)
class Size:
    """What a model costs on paper.

    Attributes:
        parameters: every weight once, tied ones too.
        flops_per_token: floating-point operations of a forward pass over 512 tokens, per token (attention included).
    """

    parameters: int
    flops_per_token: float


@dataclass(frozen=True)
class Speed:
    """What a model does on this machine, in tokens per second.

    Attributes:
        prompt: reading prompts, `batch x tokens` at once.
        decode: generating, one text at a time with a KV cache.
    """

    prompt: float
    decode: float


def measure_size(meta: torch.nn.Module) -> Size:
    """Return the size of a model on the meta device."""
    tokens = torch.zeros((1, FLOP_TOKENS), dtype=torch.long, device="meta")
    # With a mask and eager attention nothing looks at values, which tensors without memory do not have.
    mask = torch.ones_like(tokens)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(input_ids=tokens, attention_mask=mask, use_cache=False)
    return Size(sum(weight.numel() for weight in meta.parameters()), counter.get_total_flops() / FLOP_TOKENS)


@torch.inference_mode()
def measure_speed(model: PreTrainedModel, batch: int = 4, tokens: int = 256, new_tokens: int = 16) -> Speed:
    """Return measured tokens per second; the better of two, after one warm-up."""
    prompts = torch.randint(10, model.config.vocab_size, (batch, tokens), device=model.device)
    decoded = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
    one = prompts[:1, :16]
    prompt_seconds = _fastest(lambda: model(prompts, use_cache=False, logits_to_keep=1))
    decode_seconds = _fastest(lambda: model.generate(one, attention_mask=torch.ones_like(one), **decoded))
    return Speed(batch * tokens / prompt_seconds, new_tokens / decode_seconds)


def _fastest(work: object, repeats: int = 2) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        _synchronise()
        start = time.perf_counter()
        work()
        _synchronise()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def faster_dtype(model: PreTrainedModel) -> str:
    """Return the arithmetic, `bfloat16` or `float32`, in which this machine trains one step faster.

    CPUs without AVX512-BF16 or AMX run bfloat16 in software, many times slower than float32.
    """
    tokens = torch.randint(10, model.config.vocab_size, (2, 128), device=model.device)

    def step(enabled: bool) -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=enabled):
            loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    full = _fastest(lambda: step(False), repeats=1)
    half = _fastest(lambda: step(True), repeats=1)
    return "bfloat16" if half < full else "float32"
