"""The share of a list of batches or shards that one of several processes works on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessShare:
    """One process's share of the batches: every `num_processes`-th, starting at `process_index`.

    Attributes:
        process_index: this process's index, as in accelerate.
        num_processes: the number of processes.
        wait_for_everyone: blocks until every process has called it.
        progress: wraps the list of batches in a progress bar.
    """

    process_index: int = 0
    num_processes: int = 1
    wait_for_everyone: Callable[[], None] = lambda: None
    progress: Callable[[list], Iterable] = iter


SINGLE_PROCESS = ProcessShare()
