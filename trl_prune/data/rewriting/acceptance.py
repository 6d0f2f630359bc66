"""Which rewritten answers are accepted, and the dataset columns that record it."""

import re
from collections import Counter
from collections.abc import Sequence

from trl_prune.data.formats import Row, prompt_and_answer, with_answer
from trl_prune.data.rewriting.answer_types import ANSWER_TYPES, answer_type_of


# Values of the `provenance` column.
REWRITTEN, REFERENCE = "rewritten", "reference"


# The columns that rewriting adds to a dataset.
PROVENANCE_COLUMN, VERDICT_COLUMN = "provenance", "verdict"


ORIGINAL_COLUMN, REWRITE_COLUMN = "reference_answer", "rewrite"


BANNED_PHRASES = ("reference answer", "your response", "my response", "your own response", "now it's your turn")


BANNED_STARTS = ("your turn",)


PROMPT_HEADINGS = ("### instruction", "### response", "### reference", "below are an instruction")


REFUSAL_STARTS = ("i'm sorry, but", "i am sorry, but", "as an ai", "i cannot help", "i can't help", "i'm unable to")


# A text is repetitive if some run of NGRAM_WORDS words occurs NGRAM_COUNT times.
NGRAM_WORDS, NGRAM_COUNT = 6, 3


def rejection_reason(text: str, finished: bool = True) -> str | None:
    """Return why a rewritten answer is rejected whatever its reference, as a verdict value, or None.

    Args:
        text: the rewritten answer.
        finished: whether generation ended with an end-of-sequence token.
    """
    lower = text.lower().strip()
    checks = {
        "empty": not re.search(r"\w", lower),
        "echo": any(heading in lower for heading in PROMPT_HEADINGS),
        "banned_phrase": lower.startswith(BANNED_STARTS) or any(phrase in lower for phrase in BANNED_PHRASES),
        "refusal": lower.startswith(REFUSAL_STARTS),
        "repetition": is_repetitive(lower),
        "truncated": not finished,
    }
    return next((reason for reason, applies in checks.items() if applies), None)


def is_repetitive(text: str) -> bool:
    """Return whether some run of words occurs repeatedly."""
    words = text.split()
    ngrams = Counter(tuple(words[start : start + NGRAM_WORDS]) for start in range(len(words) - NGRAM_WORDS + 1))
    return bool(ngrams) and max(ngrams.values()) >= NGRAM_COUNT


def verdict_of(row: Row, rewrite: str, finished: bool) -> str:
    """Return `accepted`, or why the reference answer is kept."""
    reason = rejection_reason(rewrite, finished)
    if reason is not None:
        return reason
    agrees = ANSWER_TYPES[answer_type_of(row)].agrees
    if agrees is None:
        return "accepted"
    reference = prompt_and_answer(row)[1]
    return "accepted" if agrees(rewrite, str(row.get("answer") or reference)) else "disagrees"


def is_rewritten(columns: Sequence[str]) -> bool:
    """Return whether a dataset with these columns was rewritten already."""
    return {PROVENANCE_COLUMN, VERDICT_COLUMN, ORIGINAL_COLUMN, REWRITE_COLUMN} <= set(columns)


def with_chosen_answer(row: Row, rewrite: str | None, finished: bool) -> dict:
    """Return a row with the rewritten answer if it is accepted, else the reference, and the columns that record it.

    Args:
        row: the original row.
        rewrite: the rewritten answer; None if no rewriting was requested.
        finished: whether generation ended with an end-of-sequence token.
    """
    verdict = "not_asked" if rewrite is None else verdict_of(row, rewrite, finished)
    split = prompt_and_answer(row)
    accepted = verdict == "accepted"
    chosen = with_answer(row, rewrite.strip()) if accepted else dict(row)
    return chosen | {
        PROVENANCE_COLUMN: REWRITTEN if accepted else REFERENCE,
        VERDICT_COLUMN: verdict,
        ORIGINAL_COLUMN: split[1] if split else None,
        REWRITE_COLUMN: rewrite,
    }


def acceptance_by_capability(rows: Sequence[Row]) -> dict[str, dict]:
    """Return the number of rows, the acceptance rate and the count of each verdict, per capability and for `all`."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(str(row.get("capability") or "unnamed"), []).append(row)
    if set(groups) == {"all", "unnamed"}:
        del groups["unnamed"]
    return {capability: _acceptance(members) for capability, members in groups.items()}


def _acceptance(rows: Sequence[Row]) -> dict:
    verdicts = Counter(str(row[VERDICT_COLUMN]) for row in rows)
    return {"rows": len(rows), "acceptance_rate": verdicts["accepted"] / max(len(rows), 1), "verdicts": dict(verdicts)}
