"""Which rewritten answers are accepted, and the columns that record it."""

import re
from collections import Counter
from collections.abc import Sequence

from trl_prune.data.formats import Row, conversation, with_answer
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of


REWRITTEN, REFERENCE = "rewritten", "reference"


# The columns a rewritten dataset has beside its own.
PROVENANCE_COLUMN, VERDICT_COLUMN = "provenance", "verdict"


ORIGINAL_COLUMN, REWRITE_COLUMN = "reference_answer", "rewrite"


BANNED = ("reference answer", "your response", "my response", "your own response", "now it's your turn")


BANNED_STARTS = ("your turn",)


HEADINGS = ("### instruction", "### response", "### reference", "below are an instruction")


REFUSALS = ("i'm sorry, but", "i am sorry, but", "as an ai", "i cannot help", "i can't help", "i'm unable to")


# A run of this many words that comes back this often is a loop, not an answer.
LOOP_WORDS, LOOP_TIMES = 6, 3


def rejection_reason(text: str, finished: bool = True) -> str | None:
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


def verdict_of(row: Row, rewrite: str, finished: bool) -> str:
    """Return `accepted`, or why the reference stays."""
    fault = rejection_reason(rewrite, finished)
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


def with_chosen_answer(row: Row, rewrite: str | None, finished: bool) -> dict:
    """Return a row with the better answer and where it came from; `rewrite` is None for rows never asked."""
    verdict = "not_asked" if rewrite is None else verdict_of(row, rewrite, finished)
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
