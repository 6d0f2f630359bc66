"""Answers to a list of prompts, each generated once, whoever asks and however often the run is interrupted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trl_prune.data.generation.engine import Engine
from trl_prune.data.generation.missing import generate_missing
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore, answer_key
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare


# Seconds between looks at what other processes have generated.
POLL_SECONDS = 1.0
# Seconds without a new answer after which a process generates what is missing itself: another one may have ended, or
# have other prompts.
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class AnswerGenerator:
    """Generates answers, or reads those that are stored.

    Attributes:
        engine: what generates.
        tokenizer: that of the engine's model.
        cache_dir: the folder where answers are stored, the same for all processes.
        share: the batches that this process generates.
    """

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    cache_dir: Path
    share: ProcessShare = SINGLE_PROCESS

    @cached_property
    def _store(self) -> AnswerStore:
        return AnswerStore(self.cache_dir)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Generate and store this process's share of the missing answers."""
        generate_missing(prompts, self.engine, sampling, self._store, self.share)

    def answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        """Return the answers: this process generates its share of the missing ones and waits for the others'."""
        self.generate(prompts, sampling)
        # Not a barrier: with several processes the slowest may take longer than a collective's time limit.
        keys = [self.key(prompt, sampling) for prompt in prompts]
        most, since = -1, time.monotonic()
        while len(stored := self._store.read(keys)) < len(set(keys)):
            if len(stored) > most:
                most, since = len(stored), time.monotonic()
            elif time.monotonic() - since > PATIENCE_SECONDS:
                generate_missing(prompts, self.engine, sampling, self._store, SINGLE_PROCESS)
            else:
                time.sleep(POLL_SECONDS)
        return [stored[key] for key in keys]

    def key(self, prompt: Prompt, sampling: Sampling) -> str:
        """Return the hash under which a prompt's answer is stored."""
        return answer_key(prompt, sampling, self.engine.fingerprint)
