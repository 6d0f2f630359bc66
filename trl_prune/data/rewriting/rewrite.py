"""The whole data step: from a dataset and a dense model to a dataset with the better of both answers per row."""

from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune.data.formats import Row
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
from trl_prune.data.rewriting.acceptance import with_chosen_answer
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of
from trl_prune.data.rewriting.requests import Request, rewriting_request
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


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
    teacher: LazyTeacher,
    sampling: Sampling,
    cache_dir: Path,
    share: ProcessShare = SINGLE_PROCESS,
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
    requests = rewriting_requests(dataset)
    folder = write_answers(requests, teacher, sampling, cache_dir, share)
    share.wait()
    answers = dict(zip(requests, read_answers(folder, len(requests)), strict=True))
    return Dataset.from_list(
        [_settled(dataset[index], requests.get(index), answers.get(index)) for index in range(len(dataset))]
    )


def rewriting_requests(dataset: Dataset) -> dict[int, Request]:
    """Return what the dense model is rewriting_requests to write, by row; rows that are left as they are have no request."""
    requests = ((index, rewriting_request(row)) for index, row in enumerate(dataset))
    return {index: request for index, request in requests if request is not None}


def write_answers(
    requests: dict[int, Request], teacher: LazyTeacher, sampling: Sampling, cache_dir: Path, share: ProcessShare
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
        return with_chosen_answer(row, None, True)
    return with_chosen_answer(row, request.prefill + answer.text, answer.finished)


class _Writer:
    """Generates a batch, loading the model at the first one."""

    def __init__(self, teacher: LazyTeacher, sampling: Sampling):
        self.teacher, self.sampling, self.model = teacher, sampling, None

    def __call__(self, prompts: list[list[int]], number: int) -> list[Answer]:
        if self.model is None:
            self.model = self.teacher.load()
        torch.manual_seed(self.sampling.seed + number)
        return generate_batch(self.model, self.teacher.tokenizer, prompts, self.sampling)
