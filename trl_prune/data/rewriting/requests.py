"""The messages that ask the dense model to rewrite an answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from trl_prune.data.formats import Message, Row, template_variables
from trl_prune.data.rewriting.answer_types import AUTO, AnswerType, check_answer_type, shipped_answer_types
from trl_prune.data.rewriting.inference import type_of_answer, type_of_dataset
from trl_prune.data.rewriting.turns import Turn
from trl_prune.errors import InputError


@dataclass(frozen=True)
class Asking:
    """How answers are asked for.

    Attributes:
        answer_type: the type of rows whose `answer_type` column names none; `auto` chooses one for each answer.
        answer_types: the types by name.
        dataset_name: the dataset's hub id or path, by which `auto` may choose.
        response_template: what stands between prompt and answer in rows of text.
        chat_template_kwargs: variables of the chat template; a row's own column goes first.
    """

    answer_type: str = AUTO
    answer_types: Mapping[str, AnswerType | None] = field(default_factory=shipped_answer_types)
    dataset_name: str | None = None
    response_template: str | None = None
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class RewritingRequest:
    """The request to rewrite one answer.

    Attributes:
        turn: the answer to rewrite.
        type_name: its answer type.
        chosen_by: what chose the type: `column`, `setting`, `dataset` or `reference`.
        answer_type: the type; None if the answer is kept as it is.
        expected: what the final answer is checked against.
        tools: the row's tools.
        chat_template_kwargs: variables of the chat template.
        tests: the row's tests, for code.
        entry_point: the name that the tests call.
    """

    turn: Turn
    type_name: str
    chosen_by: str
    answer_type: AnswerType | None
    expected: str
    tools: list | None = None
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)
    tests: str | None = None
    entry_point: str | None = None

    @property
    def messages(self) -> list[Message]:
        """The prompt for the dense model, which contains the reference answer."""
        return self.answer_type.request(self.turn.messages, self.turn.answer.strip())


def rewriting_request(row: Row, turn: Turn, asking: Asking) -> RewritingRequest:
    """Return the request to rewrite one of a row's answers.

    Raises:
        InputError: the row's answer type is unknown, or its variables of the chat template are no object.
    """
    name, chosen_by = _answer_type(row, turn, asking)
    stated = row.get("answer") if turn.is_last else None
    return RewritingRequest(
        turn,
        name,
        chosen_by,
        asking.answer_types[name],
        str(stated) if stated not in (None, "") else turn.answer,
        row_tools(row),
        template_variables(row, asking.chat_template_kwargs),
        _tests(row),
        row.get("entry_point") or None,
    )


def row_tools(row: Row) -> list | None:
    """Return a row's tools; TRL takes a list or its JSON.

    Raises:
        InputError: they are a text that is no JSON.
    """
    tools = row.get("tools")
    try:
        return (json.loads(tools) if isinstance(tools, str) else tools) or None
    except ValueError as error:
        raise InputError(f"its tools {tools[:80]!r} are no JSON") from error


def _tests(row: Row) -> str | None:
    """Return a row's tests: one program, or a list of assertions."""
    tests = row.get("tests") or row.get("test_list") or row.get("test")
    return "\n".join(tests) if isinstance(tests, list) else tests or None


def _answer_type(row: Row, turn: Turn, asking: Asking) -> tuple[str, str]:
    """Return the type's name and what chose it."""
    column = row.get("answer_type")
    if column:
        check_answer_type(str(column), asking.answer_types, "answer_type in the dataset")
        return str(column), "column"
    if asking.answer_type != AUTO:
        return asking.answer_type, "setting"
    by_dataset = type_of_dataset(asking.dataset_name, asking.answer_types)
    if by_dataset:
        return by_dataset, "dataset"
    return type_of_answer(turn.instruction, turn.answer), "reference"
