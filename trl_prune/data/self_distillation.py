"""The whole data step: from a dataset and a dense model to a dataset with the better of both answers per row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.data.formatting import Row
from trl_prune.data.generation import (
    Answer,
    Sampling,
    generate_batch,
    generate_resumably,
    generation_key,
    plan_batches,
    prompt_ids,
    read_answers,
)
from trl_prune.data.rewriting import ANSWER_TYPES, answer_type_of, rewriting_request, settle
from trl_prune.errors import InputError


@dataclass(frozen=True)
class Share:
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


ALONE = Share()


@dataclass(frozen=True)
class Teacher:
    """The dense model that writes, loaded only if an answer is missing.

    Attributes:
        load: returns the model, in eval mode.
        tokenizer: its tokenizer.
        fingerprint: changes when the model does.
    """

    load: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


def check_answer_types(rows: Iterable[Row]) -> None:
    """Check the answer types that the rows name.

    Raises:
        InputError: one is unknown.
    """
    for row in rows:
        kind = answer_type_of(row)
        if kind not in ANSWER_TYPES:
            raise InputError(f"answer_type {kind!r} in the dataset is unknown; allowed: {', '.join(ANSWER_TYPES)}")


def rewrite_rows(
    dataset: Dataset,
    teacher: Teacher,
    sampling: Sampling,
    cache_dir: Path,
    share: Share = ALONE,
) -> Dataset:
    """Return the dataset with each answer the dense model's where that is sound, else the reference.

    Args:
        dataset: rows in `prompt` + `completion` or `messages` format; `answer_type` and `answer` columns are honoured.
        teacher: the dense model.
        sampling: how answers are drawn.
        cache_dir: generated batches are kept in a folder below, named by all that decides them.
        share: which batches this process generates; the cache must be one folder for all processes.

    Raises:
        InputError: a row names an unknown answer type.
    """
    check_answer_types(dataset)
    requests = [rewriting_request(row) for row in dataset]
    asked = [index for index, request in enumerate(requests) if request is not None]
    prompts = [prompt_ids(teacher.tokenizer, requests[index].turns, requests[index].prefill) for index in asked]
    folder = cache_dir / generation_key(prompts, sampling, teacher.fingerprint)
    batches = list(enumerate(plan_batches(prompts, sampling.batch_size)))[share.rank :: share.processes]
    writer = _Writer(teacher, sampling)
    for _ in generate_resumably(prompts, share.progress(batches), folder, writer):
        pass
    share.wait()
    answers = dict(zip(asked, read_answers(folder, len(asked)), strict=True))
    return Dataset.from_list(
        [_settled(dataset[index], requests[index], answers.get(index)) for index in range(len(dataset))]
    )


def _settled(row: dict, request: object, answer: Answer | None) -> dict:
    if answer is None:
        return settle(row, None, True)
    return settle(row, request.prefill + answer.text, answer.finished)


class _Writer:
    """Generates a batch, loading the model at the first one."""

    def __init__(self, teacher: Teacher, sampling: Sampling):
        self.teacher, self.sampling, self.model = teacher, sampling, None

    def __call__(self, prompts: list[list[int]], number: int) -> list[Answer]:
        if self.model is None:
            self.model = self.teacher.load()
        torch.manual_seed(self.sampling.seed + number)
        return generate_batch(self.model, self.teacher.tokenizer, prompts, self.sampling)
