"""Rewrite a dataset: generate the dense model's answers and keep, per row, the rewritten or the reference answer."""

from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset

from trl_prune.data.formats import Row
from trl_prune.data.generation import (
    Answer,
    Sampling,
    generate_batch,
    generate_missing_batches,
    generation_key,
    plan_batches,
    prompt_ids,
    read_answers,
)
from trl_prune.data.rewriting.acceptance import with_chosen_answer
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of
from trl_prune.data.rewriting.requests import RewritingRequest, rewriting_request
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


def check_answer_types(rows: Iterable[Row]) -> None:
    """Check the rows' answer types.

    Raises:
        InputError: one is unknown.
    """
    for row in rows:
        answer_type = answer_type_of(row)
        if answer_type not in ANSWER_TYPES:
            raise InputError(
                f"answer_type {answer_type!r} in the dataset is unknown; allowed: {', '.join(ANSWER_TYPES)}"
            )


def rewrite_rows(
    dataset: Dataset,
    teacher: LazyTeacher,
    sampling: Sampling,
    cache_dir: Path,
    share: ProcessShare = SINGLE_PROCESS,
) -> Dataset:
    """Return the dataset with the dense model's answer in each row where it is accepted, else the reference answer.

    Args:
        dataset: rows in `prompt` + `completion` or `messages` format; the columns `answer_type` and `answer` are used.
        teacher: the dense model.
        sampling: the generation settings.
        cache_dir: generated batches are stored in a subfolder named by a hash of everything that determines them.
        share: the batches that this process generates; all processes must share one cache folder.

    Raises:
        InputError: a row has an unknown answer type.
    """
    check_answer_types(dataset)
    requests = rewriting_requests(dataset)
    folder = generate_answers(requests, teacher, sampling, cache_dir, share)
    share.wait_for_everyone()
    answers = dict(zip(requests, read_answers(folder, len(requests)), strict=True))
    return Dataset.from_list(
        [_rewritten_row(row, requests.get(index), answers.get(index)) for index, row in enumerate(dataset)]
    )


def rewriting_requests(dataset: Dataset) -> dict[int, RewritingRequest]:
    """Return the rewriting requests by row index; rows without an answer to rewrite have none."""
    requests = ((index, rewriting_request(row)) for index, row in enumerate(dataset))
    return {index: request for index, request in requests if request is not None}


def generate_answers(
    requests: dict[int, RewritingRequest],
    teacher: LazyTeacher,
    sampling: Sampling,
    cache_dir: Path,
    share: ProcessShare,
) -> Path:
    """Generate the missing batches of one process's share, and return the folder that all processes write to."""
    prompts = [prompt_ids(teacher.tokenizer, request.messages, request.prefill) for request in requests.values()]
    folder = cache_dir / generation_key(prompts, sampling, teacher.fingerprint)
    batches = list(enumerate(plan_batches(prompts, sampling.batch_size)))[share.process_index :: share.num_processes]
    for _ in generate_missing_batches(prompts, share.progress(batches), folder, _BatchGenerator(teacher, sampling)):
        pass
    return folder


def _rewritten_row(row: Row, request: RewritingRequest | None, answer: Answer | None) -> dict:
    if answer is None:
        return with_chosen_answer(row, None, True)
    return with_chosen_answer(row, request.prefill + answer.text, answer.finished)


class _BatchGenerator:
    """Generates batches of answers; loads the model at the first call."""

    def __init__(self, teacher: LazyTeacher, sampling: Sampling):
        self.teacher, self.sampling, self.model = teacher, sampling, None

    def __call__(self, prompts: list[list[int]], batch_index: int) -> list[Answer]:
        if self.model is None:
            self.model = self.teacher.load()
        torch.manual_seed(self.sampling.seed + batch_index)
        return generate_batch(self.model, self.teacher.tokenizer, prompts, self.sampling)
