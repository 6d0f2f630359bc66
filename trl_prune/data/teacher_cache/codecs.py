"""Three encodings of a teacher's prediction at a position: a sample, the top k with a tail, the final state.

| tier | stores | serves |
|---|---|---|
| `sampled` | a systematic sample of the distribution | T = 1; the expected gradient is the full one |
| `topk` | the k likeliest ids and the total mass of all others | the temperature it was written at |
| `hidden` | the LM head's input state, in bfloat16 | any temperature, the full distribution |

A codec encodes states, `(positions, hidden_size)`, to named arrays with one entry per position (or, for those in
`ragged`, `lengths[position]` entries), and decodes such arrays to the target of a loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget


# Maximum number of logits in memory at once.
CHUNK_ELEMENTS = 1 << 23
# A drawn id and its count are stored in one integer, the count in 6 bits, so a position has 64 draws at most.
COUNT_BITS = 6
MAX_DRAWS = 1 << COUNT_BITS
BYTE_BITS = 8
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Sampled:
    """A systematic sample of R draws: R equally spaced points, with one common shift, on the cumulative probabilities.

    Each id is drawn floor(R p) or ceil(R p) times and R p times in expectation, so the sampled target, and with it the
    gradient of the forward KL, is unbiased; its variance is smaller than that of R independent draws.

    Attributes:
        draws: R, 1 to 64.
        seed: of the random shifts of all positions.
    """

    draws: int = 50
    seed: int = 0
    tier: ClassVar[str] = "sampled"
    ragged: ClassVar[tuple[str, ...]] = ("entries",)
    temperature: ClassVar[float | None] = 1.0

    def __post_init__(self):
        if not 1 <= self.draws <= MAX_DRAWS:
            raise InputError(f"draws is {self.draws}; allowed: 1..{MAX_DRAWS}")

    def encode(self, states: Tensor, head: LMHead, shifts: Tensor) -> Arrays:
        """Return `lengths`, `(positions,)`, and `entries`, id and count of each drawn id in 3 bytes (or 4)."""
        vocab_size, start = len(head.weight), 0
        lengths, entries = [], []
        for logits in logits_in_chunks(states, head):
            chunk_shifts = shifts[start : start + len(logits)].to(logits.device)
            start += len(logits)
            ids, counts, num_ids = run_lengths(systematic_draws(logits.softmax(-1), chunk_shifts, self.draws))
            lengths.append(num_ids.to(torch.uint8).cpu())
            entries.append(pack_bytes((ids << COUNT_BITS) + counts - 1, vocab_size << COUNT_BITS).cpu())
        return {"lengths": torch.cat(lengths), "entries": torch.cat(entries)}

    def decode(self, arrays: Arrays, head: LMHead | None) -> SparseTarget:  # noqa: ARG002
        """Return the drawn ids with their shares of the draws as probabilities."""
        lengths = arrays["lengths"].long()
        entries = unpack_bytes(arrays["entries"])
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        starts = lengths.cumsum(0) - lengths
        columns = torch.arange(len(entries), device=lengths.device) - starts[rows]
        shape = (len(lengths), int(lengths.max()) if len(lengths) else 0)
        ids = torch.zeros(shape, dtype=torch.long, device=lengths.device)
        probs = torch.zeros(shape, device=lengths.device)
        ids[rows, columns] = entries >> COUNT_BITS
        probs[rows, columns] = ((entries & (MAX_DRAWS - 1)) + 1).float() / self.draws
        return SparseTarget(ids, probs)


@dataclass(frozen=True)
class TopK:
    """The k likeliest ids at one temperature, and the total mass of all others.

    Attributes:
        k: number of ids.
        temperature: of the teacher's distribution.
    """

    k: int = 64
    temperature: float = 1.0
    seed: ClassVar[int] = 0
    tier: ClassVar[str] = "topk"
    ragged: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if self.k < 1 or self.temperature <= 0:
            raise InputError(f"k is {self.k} and temperature {self.temperature}; both must be above 0")

    def encode(self, states: Tensor, head: LMHead, shifts: Tensor) -> Arrays:  # noqa: ARG002
        """Return `ids`, 2 bytes each (or 3), `log_probs` in float16, both `(positions, k)`, and `tail`."""
        chunks = [self._encode_logits(logits / self.temperature) for logits in logits_in_chunks(states, head)]
        return {name: torch.cat([chunk[name].cpu() for chunk in chunks]) for name in chunks[0]}

    def _encode_logits(self, logits: Tensor) -> Arrays:
        vocab_size = logits.shape[-1]
        log_normalizer = logits.logsumexp(-1, keepdim=True)
        top_logits, ids = logits.topk(min(self.k, vocab_size))
        # Summed over the other ids: 1 - sum(top) would leave only rounding noise of a small tail.
        tail = (logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - log_normalizer).exp()
        lowest = torch.finfo(torch.float16).min
        log_probs = (top_logits - log_normalizer).clamp(min=lowest).half()
        return {"ids": pack_bytes(ids, vocab_size), "log_probs": log_probs, "tail": tail.squeeze(-1)}

    def decode(self, arrays: Arrays, head: LMHead | None) -> SparseTarget:  # noqa: ARG002
        """Return ids, probabilities and tail, rescaled to sum to 1 despite the rounding to float16."""
        probs, tail = arrays["log_probs"].float().exp(), arrays["tail"]
        probs = probs * ((1 - tail) / probs.sum(-1))[:, None]
        return SparseTarget(unpack_bytes(arrays["ids"]), probs, tail, self.temperature)


@dataclass(frozen=True)
class Hidden:
    """The final state, post-norm, that is the LM head's input; the head is stored once per cache."""

    seed: ClassVar[int] = 0
    tier: ClassVar[str] = "hidden"
    ragged: ClassVar[tuple[str, ...]] = ()
    temperature: ClassVar[float | None] = None

    def encode(self, states: Tensor, head: LMHead, shifts: Tensor) -> Arrays:  # noqa: ARG002
        """Return `states`, `(positions, hidden_size)`, in bfloat16."""
        return {"states": states.bfloat16().cpu()}

    def decode(self, arrays: Arrays, head: LMHead) -> HeadTarget:
        """Return the head with the states in its dtype."""
        return HeadTarget(arrays["states"].to(head.weight.dtype), head)


Codec = Sampled | TopK | Hidden
CODECS: dict[str, Callable[..., Codec]] = {codec.tier: codec for codec in (Sampled, TopK, Hidden)}


def logits_in_chunks(states: Tensor, head: LMHead) -> Iterator[Tensor]:
    """Yield the float32 logits of consecutive chunks of positions, `(chunk, vocab_size)`; never of all at once."""
    for chunk in states.split(max(1, CHUNK_ELEMENTS // len(head.weight))):
        yield head.logits(chunk)


def systematic_draws(probs: Tensor, shifts: Tensor, draws: int) -> Tensor:
    """Return ids drawn at the points `(0 + shift) / R, (1 + shift) / R, ...` of the cumulative probabilities.

    Args:
        probs: `(positions, vocab_size)`; each row is normalised to sum to 1.
        shifts: `(positions,)` float64 in [0, 1); uniform shifts give unbiased counts.
        draws: R.

    Returns:
        `(positions, R)` ids, ascending in each row.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    cumulative = cumulative / cumulative[:, -1:]
    steps = torch.arange(draws, dtype=torch.float64, device=probs.device)
    points = (steps + shifts[:, None].to(probs.device)) / draws
    # A point rounded up to 1 would fall beyond the last id.
    points = points.clamp(max=1 - torch.finfo(torch.float64).eps)
    return torch.searchsorted(cumulative, points, right=True)


def run_lengths(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run-length encode rows of ascending ids.

    Returns:
        The distinct ids of all rows concatenated, their counts, and the number of distinct ids of each row.
    """
    is_start = torch.ones_like(ids, dtype=torch.bool)
    is_start[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = is_start.flatten().nonzero().squeeze(-1)
    ends = torch.cat([starts[1:], starts.new_tensor([ids.numel()])])
    return ids.flatten()[starts], ends - starts, is_start.sum(-1)


def pack_bytes(values: Tensor, bound: int) -> Tensor:
    """Return integers in [0, bound) as little-endian bytes, `(..., width)` uint8 of the smallest sufficient width."""
    width = max(1, ((bound - 1).bit_length() + BYTE_BITS - 1) // BYTE_BITS)
    return torch.stack([(values >> (BYTE_BITS * index)) & 0xFF for index in range(width)], -1).to(torch.uint8)


def unpack_bytes(packed: Tensor) -> Tensor:
    """Return the integers, `(...)` int64, that `pack_bytes` packed."""
    shifts = BYTE_BITS * torch.arange(packed.shape[-1], device=packed.device)
    return (packed.long() << shifts).sum(-1)


def codec_settings(codec: Codec) -> dict:
    """Return a codec's settings as JSON values."""
    return {"tier": codec.tier} | vars(codec)


def codec_from_settings(settings: dict) -> Codec:
    """Return the codec with the settings that `codec_settings` returned.

    Raises:
        InputError: the tier is unknown.
    """
    kwargs = dict(settings)
    tier = kwargs.pop("tier", None)
    if tier not in CODECS:
        raise InputError(f"tier is {tier!r}; allowed: {', '.join(CODECS)}")
    return CODECS[tier](**kwargs)
