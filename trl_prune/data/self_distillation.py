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
from trl_prune.data.rewriting import ANSWER_TYPES, Request, answer_type_of, rewriting_request, settle
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
    requests = asked(dataset)
    folder = write_answers(requests, teacher, sampling, cache_dir, share)
    share.wait()
    answers = dict(zip(requests, read_answers(folder, len(requests)), strict=True))
    return Dataset.from_list(
        [_settled(dataset[index], requests.get(index), answers.get(index)) for index in range(len(dataset))]
    )


def asked(dataset: Dataset) -> dict[int, Request]:
    """Return what the dense model is asked to write, by row; rows that are left as they are have no request."""
    requests = ((index, rewriting_request(row)) for index, row in enumerate(dataset))
    return {index: request for index, request in requests if request is not None}


def write_answers(
    requests: dict[int, Request], teacher: Teacher, sampling: Sampling, cache_dir: Path, share: Share
) -> Path:
    """Generate one process's share of the answers, or what of it is missing, and return the folder of all."""
    prompts = [prompt_ids(teacher.tokenizer, request.turns, request.prefill) for request in requests.values()]
    folder = cache_dir / generation_key(prompts, sampling, teacher.fingerprint)
    batches = list(enumerate(plan_batches(prompts, sampling.batch_size)))[share.rank :: share.processes]
    for _ in generate_resumably(prompts, share.progress(batches), folder, _Writer(teacher, sampling)):
        pass
    return folder


def _settled(row: dict, request: Request | None, answer: Answer | None) -> dict:
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
