"""What acceptance and cost say about the speed of speculative decoding (2211.17192), before anything is timed.

A round is one call of the target: the draft proposes up to g tokens, the target accepts the first of them and adds one
of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rounds:
    """What happens to a text, or to several, that is decoded with a draft.

    Attributes:
        tokens: tokens generated.
        calls: calls of the target; an expected number where acceptance is a probability.
        proposed: how many tokens reached the target's judgement at each position in the draft, from the first on:
            those after a rejected one do not.
        accepted: how many of these were accepted.
    """

    tokens: float
    calls: float
    proposed: tuple[float, ...]
    accepted: tuple[float, ...]

    @property
    def tokens_per_call(self) -> float:
        """The mean accepted length, the target's own token included."""
        return self.tokens / self.calls

    @property
    def acceptance(self) -> tuple[float | None, ...]:
        """The share accepted at each position in the draft; None where no token came so far."""
        return tuple(
            accepted / proposed if proposed else None
            for proposed, accepted in zip(self.proposed, self.accepted, strict=True)
        )


def total(rounds: Iterable[Rounds]) -> Rounds:
    """Return the sum over texts, which all have the same draft length."""
    parts = list(rounds)
    return Rounds(
        sum(part.tokens for part in parts),
        sum(part.calls for part in parts),
        tuple(map(sum, zip(*(part.proposed for part in parts), strict=True))),
        tuple(map(sum, zip(*(part.accepted for part in parts), strict=True))),
    )


def expected_rounds(acceptance: Sequence[float], draft_length: int) -> Rounds:
    """Return what is expected of one text, given the acceptance of each of its tokens.

    It is exact: given the text, tokens are accepted independently of each other. The mean over texts that are sampled
    from the target is the mean over decoding.

    Args:
        acceptance: the probability of each token of the text to be accepted where the draft proposes at its position:
            min(1, q/p) of the token itself for sampling, 0 or 1 for greedy decoding.
        draft_length: tokens that the draft proposes in a round, from 1.
    """
    count = len(acceptance)
    start = np.zeros(count + draft_length + 1)  # the probability that a round starts at each token
    start[0] = 1
    proposed, accepted = np.zeros(draft_length), np.zeros(draft_length)
    for first in range(count):
        reached = start[first]
        for position, rate in enumerate(acceptance[first : first + draft_length]):
            proposed[position] += reached
            accepted[position] += reached * rate
            start[first + position + 1] += reached * (1 - rate)
            reached *= rate
        start[first + draft_length + 1 if first + draft_length < count else count] += reached
    return Rounds(count, float(start[:count].sum()), tuple(proposed.tolist()), tuple(accepted.tolist()))


def expected_tokens(acceptance: float, draft_length: int) -> float:
    """Return the expected tokens of a round where each token is accepted with one probability (equation 1)."""
    return sum(acceptance**position for position in range(draft_length + 1))


def speed_up(tokens_per_call: float, draft_length: int, cost_ratio: float, verification: float = 1.0) -> float:
    """Return the predicted speed-up over decoding without a draft (theorem 3.8).

    Args:
        tokens_per_call: the mean accepted length.
        draft_length: tokens that the draft proposes.
        cost_ratio: seconds of a step of the draft over those of a step of the target, c.
        verification: seconds of the target over `draft_length + 1` tokens over those of one step. The paper takes 1;
            on a CPU, or in large batches, it is more.
    """
    return tokens_per_call / (draft_length * cost_ratio + verification)


def best(by_length: Mapping[int, float]) -> int:
    """Return the draft length with the largest value, the shortest of equal ones."""
    return max(sorted(by_length), key=lambda length: by_length[length])


@dataclass(frozen=True)
class DepthCost:
    """What a step costs a model cut to fewer blocks, by the weights that it reads.

    Attributes:
        blocks: the target's number of decoder blocks.
        block_parameters: weights of all its blocks.
        head_parameters: weights of the LM head, which every draft keeps.
    """

    blocks: int
    block_parameters: int
    head_parameters: int

    def ratio(self, blocks: int) -> float:
        """Return the cost of a step with so many blocks, as a share of the target's."""
        whole = self.block_parameters + self.head_parameters
        return (self.block_parameters * blocks / self.blocks + self.head_parameters) / whole


def deepest_draft(acceptance: float, costs: DepthCost, verification: Mapping[int, float], wanted: float) -> int | None:
    """Return the most blocks with which a draft gives a wanted speed-up, at an assumed acceptance; None if none do.

    Args:
        acceptance: the acceptance of every token, assumed to be the same at all depths.
        costs: the cost of a depth.
        verification: `speed_up`'s, by draft length.
        wanted: the speed-up.
    """
    for blocks in range(costs.blocks - 1, 0, -1):
        cost_ratio = costs.ratio(blocks)
        speeds = (
            speed_up(expected_tokens(acceptance, length), length, cost_ratio, verifying)
            for length, verifying in verification.items()
        )
        if max(speeds) >= wanted:
            return blocks
    return None
