"""Three ways to write down what a teacher says at a position: a sample, its top with a tail, its final state.

| tier | holds | serves |
|---|---|---|
| `sampled` | a systematic sample of the distribution | T = 1; the expected gradient is the full one |
| `topk` | the k likeliest ids and the mass of all others | the one temperature it was written at |
| `hidden` | the state the head reads, in bfloat16 | any temperature, the full distribution |

A codec encodes states, `(positions, hidden_size)`, to named arrays of one entry a position (or, where `ragged` names
them, of `lengths[position]` entries), and decodes such arrays to what a loss reads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead
from trl_prune.losses.targets import HeadTarget, SparseTarget


# Logits that exist at once, in elements.
CHUNK_ELEMENTS = 1 << 23
# A draw's count shares an integer with its id: 6 bits, so a row has 64 draws at most.
COUNT_BITS = 6
MAX_DRAWS = 1 << COUNT_BITS
BYTE = 8
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Sampled:
    """A systematic sample of R draws: R equally spaced points, shifted together, on the cumulated probabilities.

    Each id is drawn floor(R p) or ceil(R p) times and R p times in expectation, so the sampled target, and with it the
    gradient of the forward KL, is unbiased; the spread is smaller than that of R independent draws.

    Attributes:
        draws: R, 1 to 64.
        seed: shifts all points of all positions.
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
        vocabulary, place = len(head.weight), 0
        lengths, entries = [], []
        for logits in logits_in_chunks(states, head):
            here = shifts[place : place + len(logits)].to(logits.device)
            place += len(logits)
            ids, counts, drawn = run_lengths(systematic_draws(logits.softmax(-1), here, self.draws))
            lengths.append(drawn.to(torch.uint8).cpu())
            entries.append(packed((ids << COUNT_BITS) + counts - 1, vocabulary << COUNT_BITS).cpu())
        return {"lengths": torch.cat(lengths), "entries": torch.cat(entries)}

    def decode(self, arrays: Arrays, head: LMHead | None) -> SparseTarget:  # noqa: ARG002
        """Return the drawn ids with their shares of the draws."""
        lengths = arrays["lengths"].long()
        values = unpacked(arrays["entries"])
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        starts = lengths.cumsum(0) - lengths
        columns = torch.arange(len(values), device=lengths.device) - starts[rows]
        shape = (len(lengths), int(lengths.max()) if len(lengths) else 0)
        ids = torch.zeros(shape, dtype=torch.long, device=lengths.device)
        probs = torch.zeros(shape, device=lengths.device)
        ids[rows, columns] = values >> COUNT_BITS
        probs[rows, columns] = ((values & (MAX_DRAWS - 1)) + 1).float() / self.draws
        return SparseTarget(ids, probs)


@dataclass(frozen=True)
class TopK:
    """The k likeliest ids at one temperature, and the mass of all others together.

    Attributes:
        k: how many.
        temperature: the teacher's.
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
        parts = [self._encoded(logits / self.temperature) for logits in logits_in_chunks(states, head)]
        return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}

    def _encoded(self, logits: Tensor) -> Arrays:
        vocabulary = logits.shape[-1]
        total = logits.logsumexp(-1, keepdim=True)
        top, ids = logits.topk(min(self.k, vocabulary))
        # Summed over the others rather than taken from 1, which would leave rounding noise of a small tail.
        tail = (logits.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - total).exp()
        lowest = torch.finfo(torch.float16).min
        log_probs = (top - total).clamp(min=lowest).half()
        return {"ids": packed(ids, vocabulary), "log_probs": log_probs, "tail": tail.squeeze(-1)}

    def decode(self, arrays: Arrays, head: LMHead | None) -> SparseTarget:  # noqa: ARG002
        """Return ids, probabilities and tail; they sum to 1 whatever float16 rounded."""
        probs, tail = arrays["log_probs"].float().exp(), arrays["tail"]
        probs = probs * ((1 - tail) / probs.sum(-1))[:, None]
        return SparseTarget(unpacked(arrays["ids"]), probs, tail, self.temperature)


@dataclass(frozen=True)
class Hidden:
    """The final state, post-norm, that the teacher's head reads; the head itself is kept once beside the shards."""

    seed: ClassVar[int] = 0
    tier: ClassVar[str] = "hidden"
    ragged: ClassVar[tuple[str, ...]] = ()
    temperature: ClassVar[float | None] = None

    def encode(self, states: Tensor, head: LMHead, shifts: Tensor) -> Arrays:  # noqa: ARG002
        """Return `states`, `(positions, hidden_size)`, in bfloat16."""
        return {"states": states.bfloat16().cpu()}

    def decode(self, arrays: Arrays, head: LMHead) -> HeadTarget:
        """Return states, in the head's dtype, and head."""
        return HeadTarget(arrays["states"].to(head.weight.dtype), head)


Codec = Sampled | TopK | Hidden
CODECS: dict[str, Callable[..., Codec]] = {codec.tier: codec for codec in (Sampled, TopK, Hidden)}


def logits_in_chunks(states: Tensor, head: LMHead) -> Iterator[Tensor]:
    """Yield float32 logits of runs of positions, `(some, vocab_size)`; never of all at once."""
    for chunk in states.split(max(1, CHUNK_ELEMENTS // len(head.weight))):
        yield head.logits(chunk)


def systematic_draws(probs: Tensor, shifts: Tensor, draws: int) -> Tensor:
    """Return ids drawn at the points `(0 + shift) / R, (1 + shift) / R, ...` of the cumulated probabilities.

    Args:
        probs: `(positions, vocab_size)`; each row is scaled to sum to 1.
        shifts: `(positions,)` float64 in [0, 1); uniform shifts give unbiased counts.
        draws: R.

    Returns:
        `(positions, R)` ids, ascending in each row.
    """
    cumulated = probs.cumsum(-1, dtype=torch.float64)
    cumulated = cumulated / cumulated[:, -1:]
    steps = torch.arange(draws, dtype=torch.float64, device=probs.device)
    points = (steps + shifts[:, None].to(probs.device)) / draws
    # A point rounded up to 1 would fall behind the last id.
    points = points.clamp(max=1 - torch.finfo(torch.float64).eps)
    return torch.searchsorted(cumulated, points, right=True)


def run_lengths(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, of rows of ascending ids, the distinct ids of all rows, their counts, and how many each row has."""
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    places = begins.flatten().nonzero().squeeze(-1)
    ends = torch.cat([places[1:], places.new_tensor([ids.numel()])])
    return ids.flatten()[places], ends - places, begins.sum(-1)


def packed(values: Tensor, bound: int) -> Tensor:
    """Return integers in [0, bound) as bytes, low byte first: `(..., width)` uint8 of the least sufficient width."""
    width = max(1, ((bound - 1).bit_length() + BYTE - 1) // BYTE)
    return torch.stack([(values >> (BYTE * place)) & 0xFF for place in range(width)], -1).to(torch.uint8)


def unpacked(bytes_: Tensor) -> Tensor:
    """Return what `packed` packed, `(...)` int64."""
    shifts = BYTE * torch.arange(bytes_.shape[-1], device=bytes_.device)
    return (bytes_.long() << shifts).sum(-1)


def settings_of(codec: Codec) -> dict:
    """Return a codec as JSON."""
    return {"tier": codec.tier} | vars(codec)


def codec_of(settings: dict) -> Codec:
    """Return the codec that `settings_of` told.

    Raises:
        InputError: the tier is unknown.
    """
    told = dict(settings)
    tier = told.pop("tier", None)
    if tier not in CODECS:
        raise InputError(f"tier is {tier!r}; allowed: {', '.join(CODECS)}")
    return CODECS[tier](**told)
