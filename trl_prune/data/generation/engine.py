"""What generates answers: the interface of the engines."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling


class Engine(Protocol):
    """Generates answers to many prompts.

    Attributes:
        fingerprint: changes with whatever of the model and the engine determines the answers.
    """

    fingerprint: str

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        """Yield finished groups of answers, each by the index of its prompt; the caller stores each group at once.

        Args:
            prompts: in the order in which they should be batched (`plan_batches`).
            sampling: the generation settings.
        """

    def close(self) -> None:
        """Free the model's memory; a later call of `generate` loads it again."""


def in_groups(
    answers: Iterable[tuple[int, Answer]], size: int, seconds: float = math.inf
) -> Iterator[dict[int, Answer]]:
    """Yield answers that arrive one by one in groups: of `size`, of some seconds, at the end of what is left.

    If the source fails, the answers that it gave are yielded before the error is raised.
    """
    group: dict[int, Answer] = {}
    start = time.monotonic()
    try:
        for index, answer in answers:
            group[index] = answer
            if len(group) == size or time.monotonic() - start > seconds:
                yield group
                group, start = {}, time.monotonic()
    except Exception as error:
        if group:
            yield group
        raise error
    if group:
        yield group
