"""The answer types of self-data distillation: the prompt that asks for a rewritten answer, and the check of its final answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from trl_prune.data.formats import Row


# Prompts and banned phrases are those of self-distillation fine-tuning (arXiv 2402.13669, sail-sg/sdft), on which
# 2410.09982 builds.
GENERAL_SYSTEM = (
    "Below are an instruction that describes a task along with a reference answer. Using the reference answer as a "
    "guide, write your own response."
)


GENERAL_USER = "### Instruction:\n{instruction}\n\n### Reference Answer:\n{reference}\n\n### Response:\n"


MATH_SYSTEM = (
    "You are an expert in math. Below are a math question and its reference answer. Refer to the reference answer and "
    "write a response that appropriately answers the question."
)


MATH_USER = "{instruction}\n\n{reference}"


MATH_PREFILL = "Great! Let's think step by step. "


NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class AnswerType:
    """How one kind of answer is asked for and checked.

    Attributes:
        system: the system prompt of the rewriting request.
        user: the user turn, with `{instruction}` and `{reference}`.
        prefill: the opening words put into the assistant's mouth; part of the answer.
        agrees: whether a rewritten text's final answer is the wanted one; None where nothing can be checked.
    """

    system: str = GENERAL_SYSTEM
    user: str = GENERAL_USER
    prefill: str = ""
    agrees: Callable[[str, str], bool] | None = None


def last_number(text: str) -> float | None:
    """Return the last number of a text, or None."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def same_number(rewrite: str, wanted: str) -> bool:
    """Return whether both texts end on the same number."""
    number = last_number(wanted)
    return number is not None and last_number(rewrite) == number


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}`, braces balanced, or None."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, content = 1, ""
    for character in text[start + len(r"\boxed{") :]:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return re.sub(r"\s", "", content)
        content += character
    return None


def same_boxed(rewrite: str, wanted: str) -> bool:
    r"""Return whether a text's boxed answer is the wanted one, given boxed or bare."""
    answer = boxed(rewrite)
    return answer is not None and answer == (boxed(wanted) or re.sub(r"\s", "", wanted))


def choice_letter(text: str) -> str | None:
    """Return the letter a multiple-choice answer names: the last one said to be the answer, or a leading one."""
    named = re.findall(r"answer(?: is|:)?\s*\(?([A-J])\b", text)
    leading = re.match(r"\s*\(?([A-J])(?:[).:]|\s*$)", text)
    if named:
        return named[-1]
    return leading.group(1) if leading else None


def same_choice(rewrite: str, wanted: str) -> bool:
    """Return whether both texts choose the same letter."""
    letter = choice_letter(wanted)
    return letter is not None and choice_letter(rewrite) == letter


def has_phrase(rewrite: str, wanted: str) -> bool:
    """Return whether a text holds the wanted words, whatever their case, spacing and end punctuation."""
    phrase = _plain(wanted)
    return bool(phrase) and re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", _plain(rewrite)) is not None


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".!")


ANSWER_TYPES: dict[str, AnswerType] = {
    "open": AnswerType(),
    "phrase": AnswerType(agrees=has_phrase),
    "choice": AnswerType(agrees=same_choice),
    "number": AnswerType(MATH_SYSTEM, MATH_USER, MATH_PREFILL, same_number),
    "boxed": AnswerType(MATH_SYSTEM, MATH_USER, MATH_PREFILL, same_boxed),
}


def answer_type_of(row: Row) -> str:
    """Return a row's answer type: its `answer_type`, or `open`."""
    return str(row.get("answer_type") or "open")
