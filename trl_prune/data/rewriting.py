"""Self-data distillation's data step (2410.09982): the dense model writes each answer anew, shown the reference.

A rewritten answer is kept if it is sound and, where the final answer can be checked, agrees with the reference's;
else the reference stays. No row is ever dropped.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trl_prune.data.formatting import Message, Row, conversation, with_answer


REWRITTEN, REFERENCE = "rewritten", "reference"
# The columns a rewritten dataset has beside its own.
PROVENANCE_COLUMN, VERDICT_COLUMN = "provenance", "verdict"
ORIGINAL_COLUMN, REWRITE_COLUMN = "reference_answer", "rewrite"

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
BANNED = ("reference answer", "your response", "my response", "your own response", "now it's your turn")
BANNED_STARTS = ("your turn",)
HEADINGS = ("### instruction", "### response", "### reference", "below are an instruction")
REFUSALS = ("i'm sorry, but", "i am sorry, but", "as an ai", "i cannot help", "i can't help", "i'm unable to")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")
# A run of this many words that comes back this often is a loop, not an answer.
LOOP_WORDS, LOOP_TIMES = 6, 3


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


@dataclass(frozen=True)
class Request:
    """One answer to rewrite.

    Attributes:
        turns: the messages for the dense model, reference answer included.
        prefill: how the answer begins.
    """

    turns: list[Message]
    prefill: str


def answer_type_of(row: Row) -> str:
    """Return a row's answer type: its `answer_type`, or `open`."""
    return str(row.get("answer_type") or "open")


def rewriting_request(row: Row) -> Request | None:
    """Return what the dense model is asked for a row, or None where the row has no answer to rewrite."""
    parts = conversation(row)
    if parts is None or not parts[1].strip():
        return None
    turns, reference = parts
    kind = ANSWER_TYPES[answer_type_of(row)]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    talk = [turn for turn in turns if turn["role"] != "system"]
    if not talk or talk[-1]["role"] != "user":
        return None
    asked = kind.user.format(instruction=talk[-1]["content"], reference=reference)
    system = {"role": "system", "content": "\n\n".join([kind.system, *systems])}
    return Request([system, *talk[:-1], {"role": "user", "content": asked}], kind.prefill)


def fault_of(text: str, finished: bool = True) -> str | None:
    """Return what is wrong with a rewritten text, whatever its row: a word for reports, or None.

    Args:
        text: the rewritten answer.
        finished: whether generation ended by itself.
    """
    lower = text.lower().strip()
    checks = {
        "empty": not re.search(r"\w", lower),
        "echo": any(heading in lower for heading in HEADINGS),
        "banned_phrase": lower.startswith(BANNED_STARTS) or any(phrase in lower for phrase in BANNED),
        "refusal": lower.startswith(REFUSALS),
        "repetition": is_looping(lower),
        "truncated": not finished,
    }
    return next((fault for fault, present in checks.items() if present), None)


def is_looping(text: str) -> bool:
    """Return whether the same run of words comes back again and again."""
    words = text.split()
    runs = Counter(tuple(words[start : start + LOOP_WORDS]) for start in range(len(words) - LOOP_WORDS + 1))
    return bool(runs) and max(runs.values()) >= LOOP_TIMES


def judge(row: Row, rewrite: str, finished: bool) -> str:
    """Return `accepted`, or why the reference stays."""
    fault = fault_of(rewrite, finished)
    if fault is not None:
        return fault
    agrees = ANSWER_TYPES[answer_type_of(row)].agrees
    if agrees is None:
        return "accepted"
    reference = conversation(row)[1]
    return "accepted" if agrees(rewrite, str(row.get("answer") or reference)) else "disagrees"


def is_rewritten(columns: Sequence[str]) -> bool:
    """Return whether a dataset with these columns went through rewriting before."""
    return {PROVENANCE_COLUMN, VERDICT_COLUMN, ORIGINAL_COLUMN, REWRITE_COLUMN} <= set(columns)


def settle(row: Row, rewrite: str | None, finished: bool) -> dict:
    """Return a row with the better answer and where it came from; `rewrite` is None for rows never asked."""
    verdict = "not_asked" if rewrite is None else judge(row, rewrite, finished)
    parts = conversation(row)
    accepted = verdict == "accepted"
    new = with_answer(row, rewrite.strip()) if accepted else dict(row)
    return new | {
        PROVENANCE_COLUMN: REWRITTEN if accepted else REFERENCE,
        VERDICT_COLUMN: verdict,
        ORIGINAL_COLUMN: parts[1] if parts else None,
        REWRITE_COLUMN: rewrite,
    }


def acceptance(rows: Sequence[Row]) -> dict[str, dict]:
    """Return, per capability and for `all`, how many rows there are, the share rewritten and the verdicts' counts."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(str(row.get("capability") or "unnamed"), []).append(row)
    if set(groups) == {"all", "unnamed"}:
        del groups["unnamed"]
    return {name: _acceptance(members) for name, members in groups.items()}


def _acceptance(rows: Sequence[Row]) -> dict:
    verdicts = Counter(str(row[VERDICT_COLUMN]) for row in rows)
    return {"rows": len(rows), "acceptance_rate": verdicts["accepted"] / max(len(rows), 1), "verdicts": dict(verdicts)}
