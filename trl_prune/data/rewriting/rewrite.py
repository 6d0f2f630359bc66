"""Rewrite a dataset: generate the dense model's answers and keep, for each, the rewritten or the reference answer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from datasets import Dataset

from trl_prune.data.columns import with_columns
from trl_prune.data.formats import FORMAT_COLUMNS, Row
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.rewriting.acceptance import Accepting, judge
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS
from trl_prune.data.rewriting.provenance import KEPT, NO_ANSWER, REFERENCE, REWRITTEN, TOO_LONG, AnswerRecord
from trl_prune.data.rewriting.requests import Asking, RewritingRequest, rewriting_request
from trl_prune.data.rewriting.thoughts import thought_opened_by
from trl_prune.data.rewriting.turns import Turn, turns, with_answer, with_prompt
from trl_prune.errors import InputError


# An answer type whose extractor finds no answer in more than this share of the references is a mistake.
UNFOUND_SHARE = 0.5


@dataclass(frozen=True)
class RewriteSettings:
    """How a dataset is rewritten.

    Attributes:
        sampling: the generation settings.
        samples: how many answers are generated at most for each; the first accepted one is used.
        asking: how answers are asked for.
        accepting: how they are accepted.
        max_model_len: the dense model's longest context in tokens; None for no limit.
        train_prompts: whether the training prompts become those of the answer types that have one.
        require: whether every row must have an answer to rewrite.
    """

    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    asking: Asking = field(default_factory=Asking)
    accepting: Accepting = field(default_factory=Accepting)
    max_model_len: int | None = None
    train_prompts: bool = False
    require: bool = False


@dataclass(frozen=True)
class RewrittenDataset:
    """A rewritten dataset.

    Attributes:
        rows: the rows, with the columns and in the format of the original ones.
        records: what became of each answer.
    """

    rows: Dataset
    records: list[AnswerRecord]

    @classmethod
    def of(cls, dataset: Dataset, records: list[AnswerRecord], settings: RewriteSettings) -> "RewrittenDataset":
        """Return the dataset that the records describe."""
        rows = [dict(row) for row in dataset.with_format(None)]
        _replace_answers(rows, records, settings.asking.response_template)
        if settings.train_prompts:
            _set_train_prompts(rows, records, settings.asking)
        names = dataset.column_names
        written = {name: [row[name] for row in rows] for name in chain(*FORMAT_COLUMNS) if name in names}
        return cls(with_columns(dataset, written).select_columns(names), records)


def _replace_answers(rows: list[dict], records: Iterable[AnswerRecord], response_template: str | None) -> None:
    """Put the accepted answers into their rows, in place."""
    for record in records:
        if record.provenance == REWRITTEN:
            rows[record.row] = with_answer(rows[record.row], record.turn, record.rewrite, response_template)


def all_requests(rows: Sequence[Row], asking: Asking) -> list[list[RewritingRequest]]:
    """Return each row's rewriting requests.

    Raises:
        InputError: a row has an unknown answer type, or a type's extractor finds nothing in most references.
    """
    template = asking.response_template
    requests = [
        [_request(index, row, turn, asking) for turn in turns(row, template)] for index, row in enumerate(rows)
    ]
    _check_extractors(request for row_requests in requests for request in row_requests)
    return requests


def _request(index: int, row: Row, turn: Turn, asking: Asking) -> RewritingRequest:
    try:
        return rewriting_request(row, turn, asking)
    except InputError as error:
        raise InputError(f"row {index} of the dataset: {error}") from error


def _check_extractors(requests: Iterable[RewritingRequest]) -> None:
    counts, unfound, examples = Counter(), Counter(), {}
    for request in requests:
        extractor = request.answer_type.extractor if request.answer_type else None
        if extractor is None or request.chosen_by == "reference":  # its extractor chose the type
            continue
        counts[request.type_name] += 1
        if EXTRACTORS[extractor].extract(request.expected) is None:
            unfound[request.type_name] += 1
            examples.setdefault(request.type_name, request.expected)
    for name, count in unfound.items():
        if count > UNFOUND_SHARE * counts[name]:
            raise InputError(
                f"answer type {name!r} finds no answer in {count} of {counts[name]} references, for example in "
                f"{examples[name][:80]!r}; name another type in the `answer_type` column or setting, or add one to "
                "`answer_types`"
            )


def rewrite_rows(dataset: Dataset, generator: AnswerGenerator, settings: RewriteSettings) -> RewrittenDataset:
    """Return the dataset with the dense model's answers where they are accepted, else the references.

    The answers of a conversation are rewritten in order, each after the answers that were chosen before it.

    Args:
        dataset: rows in one of TRL's formats; the columns `answer_type`, `answer`, `tools`, `chat_template_kwargs` and
            `tests` are used.
        generator: generates the answers.
        settings: how to ask for answers and accept them.

    Raises:
        InputError: a row has an unknown answer type, a type's extractor finds nothing in most references, or the chat
            template rejects a row.
    """
    return RewrittenDataset.of(dataset, _rewrite(dataset, generator, settings), settings)


def generate_share(dataset: Dataset, generator: AnswerGenerator, settings: RewriteSettings) -> None:
    """Generate one process's share of the answers as `rewrite_rows` does; the end does not wait for the others."""
    _rewrite(dataset, generator, settings, collect=False)


def _rewrite(
    dataset: Dataset, generator: AnswerGenerator, settings: RewriteSettings, collect: bool = True
) -> list[AnswerRecord]:
    """Return the records by row, without those of the last answers if they are not to be collected."""
    rows = [dict(row) for row in dataset.with_format(None)]
    requests = all_requests(rows, settings.asking)
    records = [AnswerRecord(row, None, REFERENCE, NO_ANSWER) for row, found in enumerate(requests) if not found]
    if settings.require and records:
        raise InputError(
            f"rewriting is required, but {len(records)} of {len(rows)} rows have no answer to rewrite, the first of "
            f"them row {records[0].row}"
        )
    if settings.accepting.run_tests and not any(request.tests for found in requests for request in found):
        raise InputError("`run_tests` is set, but no row has tests in a column `tests`, `test_list` or `test`")
    positions, template = max(map(len, requests), default=0), settings.asking.response_template
    try:
        for position in range(positions):
            asked = {
                # The answers before this one may have been replaced.
                index: replace(found[position], turn=turns(rows[index], template)[position])
                for index, found in enumerate(requests)
                if position < len(found)
            }
            judged = _Rewriter(generator, settings, collect or position < positions - 1).answer(asked)
            _replace_answers(rows, judged, template)
            records += judged
    finally:
        generator.engine.close()
    return sorted(records, key=lambda record: (record.row, record.turn or 0))


def _set_train_prompts(rows: list[dict], records: Sequence[AnswerRecord], asking: Asking) -> None:
    """Give each row the training prompt of its last answer's type, if the type has one."""
    last_types = {record.row: record.answer_type for record in records if record.turn is not None}
    for row, name in last_types.items():
        answer_type = asking.answer_types[name]
        if answer_type is not None and answer_type.train is not None:
            rows[row] = with_prompt(rows[row], answer_type.train.applied)


@dataclass(frozen=True)
class _Rewriter:
    """Generates and judges one answer of each row.

    Attributes:
        generator: generates the answers.
        settings: how to ask for answers and accept them.
        collect: whether the last samples are awaited and judged, or only generated.
    """

    generator: AnswerGenerator
    settings: RewriteSettings
    collect: bool

    def answer(self, requests: dict[int, RewritingRequest]) -> list[AnswerRecord]:
        """Return the records of one answer of each row, given the requests by row index."""
        asked = {index: request for index, request in requests.items() if request.answer_type is not None}
        prompts = self.prompts(asked)
        pending = {index: prompt for index, prompt in prompts.items() if self.fits(prompt)}
        records = {
            index: _record(index, request, TOO_LONG if index in prompts else KEPT)
            for index, request in requests.items()
            if index not in pending
        }
        for sample in range(self.settings.samples):
            pending = {index: replace(prompt, sample=sample) for index, prompt in pending.items()}
            if not self.collect and sample == self.settings.samples - 1:
                self.generator.generate(list(pending.values()), self.settings.sampling)
                break
            answers = self.generator.answers(list(pending.values()), self.settings.sampling)
            for (index, prompt), answer in zip(pending.items(), answers, strict=True):
                records[index] = self.judged(index, requests[index], prompt, answer)
            pending = {index: prompt for index, prompt in pending.items() if records[index].provenance == REFERENCE}
        return list(records.values())

    def prompts(self, requests: dict[int, RewritingRequest]) -> dict[int, Prompt]:
        """Return the prompts of requests by row index."""
        references = [request.turn.answer for request in requests.values()]
        lengths = map(len, self.generator.tokenizer(references)["input_ids"]) if references else ()
        return {
            index: self.prompt(index, request, length)
            for (index, request), length in zip(requests.items(), lengths, strict=True)
        }

    def prompt(self, row: int, request: RewritingRequest, reference_tokens: int) -> Prompt:
        """Return a request as a prompt for the engine."""
        messages, prefill = request.messages, request.answer_type.prefill
        variables = dict(request.chat_template_kwargs)
        try:
            ids = prompt_ids(self.generator.tokenizer, messages, prefill, request.tools, variables)
        except InputError as error:
            raise InputError(f"row {row} of the dataset: {error}") from error
        return Prompt(ids, messages, prefill, request.tools, variables, reference_tokens)

    def fits(self, prompt: Prompt) -> bool:
        """Return whether the longest answer fits into the dense model's context."""
        limit = self.settings.max_model_len
        return limit is None or len(prompt.ids) + self.settings.sampling.max_new_tokens <= limit

    def judged(self, row: int, request: RewritingRequest, prompt: Prompt, answer: Answer) -> AnswerRecord:
        """Return the record of a generated answer."""
        text = thought_opened_by(self.generator.tokenizer, prompt.ids) + prompt.prefill + answer.text
        verdict = judge(request, text, answer.finished, self.settings.accepting)
        return replace(
            _record(row, request, verdict.reason),
            provenance=REWRITTEN if verdict.accepted else REFERENCE,
            sample=prompt.sample if verdict.accepted else None,
            hash=self.generator.key(prompt, self.settings.sampling),
            rewrite=verdict.answer,
        )


def _record(row: int, request: RewritingRequest, reason: str) -> AnswerRecord:
    return AnswerRecord(
        row,
        request.turn.index,
        REFERENCE,
        reason,
        request.type_name,
        request.chosen_by,
        reference=request.turn.answer,
    )
