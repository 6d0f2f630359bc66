"""The answer types of self-data distillation: each has a rewriting prompt and a check of the final answer."""

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
    """How one type of answer is requested and checked.

    Attributes:
        system: the system prompt of the rewriting request.
        user: the template of the user message, with `{instruction}` and `{reference}`.
        prefill: the start of the assistant message, which the model continues; part of the answer.
        agrees: returns whether a rewritten text and a reference have the same final answer; None if not checked.
    """

    system: str = GENERAL_SYSTEM
    user: str = GENERAL_USER
    prefill: str = ""
    agrees: Callable[[str, str], bool] | None = None


def last_number(text: str) -> float | None:
    """Return the last number of a text, or None."""
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def same_number(rewrite: str, reference: str) -> bool:
    """Return whether the last numbers of both texts are equal."""
    number = last_number(reference)
    return number is not None and last_number(rewrite) == number


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` with balanced braces, without whitespace, or None."""
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


def same_boxed(rewrite: str, reference: str) -> bool:
    r"""Return whether a text's boxed answer is the reference's, which may be boxed or bare."""
    answer = last_boxed(rewrite)
    return answer is not None and answer == (last_boxed(reference) or re.sub(r"\s", "", reference))


def choice_letter(text: str) -> str | None:
    """Return the letter of a multiple-choice answer: the last one after "answer is" or "answer:", or a leading one."""
    stated = re.findall(r"answer(?: is|:)?\s*\(?([A-J])\b", text)
    leading = re.match(r"\s*\(?([A-J])(?:[).:]|\s*$)", text)
    if stated:
        return stated[-1]
    return leading.group(1) if leading else None


def same_choice(rewrite: str, reference: str) -> bool:
    """Return whether both texts choose the same letter."""
    letter = choice_letter(reference)
    return letter is not None and choice_letter(rewrite) == letter


def contains_phrase(rewrite: str, reference: str) -> bool:
    """Return whether a text contains the reference as whole words, ignoring case, spacing and final punctuation."""
    phrase = _normalized(reference)
    return bool(phrase) and re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", _normalized(rewrite)) is not None


def _normalized(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".!")


ANSWER_TYPES: dict[str, AnswerType] = {
    "open": AnswerType(),
    "phrase": AnswerType(agrees=contains_phrase),
    "choice": AnswerType(agrees=same_choice),
    "number": AnswerType(MATH_SYSTEM, MATH_USER, MATH_PREFILL, same_number),
    "boxed": AnswerType(MATH_SYSTEM, MATH_USER, MATH_PREFILL, same_boxed),
}


def answer_type_of(row: Row) -> str:
    """Return a row's `answer_type`, by default `open`."""
    return str(row.get("answer_type") or "open")
