"""The answer types of self-data distillation: how an answer is asked for, and what a rewritten one must pass.

The types are data, `answer_types.yaml`; users add their own.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from trl_prune.data.formats import Message
from trl_prune.errors import InputError, closest


# Rows of this type keep their reference.
NONE = "none"
# The type is chosen by the dataset's name, else by the reference answer (`inference.py`).
AUTO = "auto"
INSTRUCTION, REFERENCE = "{instruction}", "{reference}"


def _with_placeholders(*placeholders: str) -> AfterValidator:
    def check(text: str) -> str:
        missing = [placeholder for placeholder in placeholders if placeholder not in text]
        if missing:
            raise ValueError(f"lacks {' and '.join(missing)}")
        return text

    return AfterValidator(check)


class TaskPrompt(BaseModel):
    """The prompt of a task without a reference answer.

    Attributes:
        system: the system prompt, empty for none.
        user: the template of the user message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = ""
    user: Annotated[str, _with_placeholders(INSTRUCTION)] = INSTRUCTION

    def applied(self, messages: list[Message]) -> list[Message]:
        """Return a prompt's messages with this system prompt first and its last user message in the template."""
        return with_task(messages, self.system, lambda instruction: filled(self.user, instruction=instruction))


class AnswerType(BaseModel):
    """How one type of answer is requested and checked.

    Attributes:
        system: the system prompt of the rewriting request.
        user: the template of the user message.
        prefill: the start of the assistant message, which the model continues; part of the answer.
        train: the task's prompt for training, used if the user wants it.
        infer: the task's prompt for asking the trained model.
        extractor: which of `EXTRACTORS` finds the final answer.
        checks: which of `CHECKS` a rewrite must pass.
        datasets: names of datasets whose rows have this type.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str = ""
    user: Annotated[str, _with_placeholders(INSTRUCTION, REFERENCE)]
    prefill: str = ""
    train: TaskPrompt | None = None
    infer: TaskPrompt | None = None
    extractor: Literal["number", "math", "boxed", "choice", "phrase", "code", "json", "function_call"] | None = None
    checks: tuple[Literal["same_answer", "right_steps", "agreement", "tests"], ...] = ()
    datasets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_extractor(self) -> "AnswerType":
        if ("same_answer" in self.checks) != (self.extractor is not None):
            raise ValueError("'same_answer' and 'extractor' go together")
        return self

    @property
    def last_heading(self) -> str:
        """The last line of the request if it is a heading, such as `### Response:`, else empty."""
        last = self.user.rstrip().rpartition("\n")[2]
        return last if last.endswith(":") and "{" not in last else ""

    def request(self, messages: list[Message], reference: str) -> list[Message]:
        """Return a prompt's messages as the request to rewrite the answer to it."""
        return with_task(
            messages, self.system, lambda instruction: filled(self.user, instruction=instruction, reference=reference)
        )


def with_task(messages: list[Message], system: str, user: Callable[[str], str]) -> list[Message]:
    """Return messages with a system prompt before their own one, and their last user message changed."""
    own_system = [message["content"] for message in messages if message["role"] == "system"]
    dialogue = [message for message in messages if message["role"] != "system"]
    last = max(index for index, message in enumerate(dialogue) if message["role"] == "user")
    dialogue[last] = dialogue[last] | {"content": user(dialogue[last]["content"])}
    joined = "\n\n".join(filter(None, [system, *own_system]))
    return [{"role": "system", "content": joined}, *dialogue] if joined else dialogue


def filled(template: str, **texts: str) -> str:
    """Return a template with its placeholders replaced; braces in the texts are text."""
    return re.sub(r"\{(\w+)\}", lambda match: texts.get(match[1], match[0]), template)


@cache
def shipped_answer_types() -> dict[str, AnswerType | None]:
    """Return the shipped answer types by name; `none` has no request."""
    text = (files("trl_prune.data.rewriting") / "answer_types.yaml").read_text(encoding="utf-8")
    return parse_answer_types(yaml.safe_load(text), "answer_types.yaml")


def parse_answer_types(entries: Mapping[str, object], source: str) -> dict[str, AnswerType | None]:
    """Return answer types by name.

    Raises:
        InputError: an entry has an unknown key or value, or a template lacks a placeholder.
    """
    types: dict[str, AnswerType | None] = {}
    if AUTO in entries:
        raise InputError(f"{source} has a type named {AUTO!r}, which stands for a choice between types")
    for name, entry in entries.items():
        try:
            types[name] = None if entry is None and name == NONE else AnswerType.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join([source, str(name), *map(str, first["loc"])])
            message = first["msg"].removeprefix("Value error, ")
            raise InputError(f"{key} {message}" + _given(first["input"])) from error
    return types


def _given(value: object) -> str:
    return f" (given: {value!r})" if isinstance(value, str | int | float) else ""


def all_answer_types(added: Mapping[str, object], source: str) -> dict[str, AnswerType | None]:
    """Return the shipped answer types and the user's, which may replace shipped ones.

    Args:
        added: entries in the form of `answer_types.yaml`.
        source: the key they come from, for errors.

    Raises:
        InputError: an added entry is invalid.
    """
    return shipped_answer_types() | parse_answer_types(added, source)


def check_answer_type(name: str, known: Collection[str], source: str) -> None:
    """Check the name of an answer type.

    Raises:
        InputError: it is unknown.
    """
    if name in known:
        return
    likely = closest(name, known)
    hint = f"; did you mean {likely!r}?" if likely else ""
    raise InputError(f"{source} is {name!r}, an unknown answer type; allowed: {', '.join(known)}{hint}")
