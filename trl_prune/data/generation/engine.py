"""What generates answers: the interface of the engines."""

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


def in_groups(answers: Iterable[tuple[int, Answer]], size: int) -> Iterator[dict[int, Answer]]:
    """Yield answers that arrive one by one in groups of `size`, the last of which may be smaller."""
    group: dict[int, Answer] = {}
    for index, answer in answers:
        group[index] = answer
        if len(group) == size:
            yield group
            group = {}
    if group:
        yield group
