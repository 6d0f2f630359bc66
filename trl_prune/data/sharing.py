"""The part of a list of batches that one of several processes works on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessShare:
    """One process's part of the batches.

    Attributes:
        rank: this process.
        processes: how many there are.
        wait: blocks until every process has come here.
        progress: wraps the list of batches.
    """

    rank: int = 0
    processes: int = 1
    wait: Callable[[], None] = lambda: None
    progress: Callable[[list], Iterable] = iter


SINGLE_PROCESS = ProcessShare()
