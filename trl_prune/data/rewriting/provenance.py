"""What became of each answer: a record an answer, beside the rewritten rows."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from trl_prune.checkpoints import write_text
from trl_prune.data.formats import CAPABILITY, Row
from trl_prune.data.rewriting.acceptance import ACCEPTED


# Values of `provenance`.
REWRITTEN, REFERENCE = "rewritten", "reference"
# Reasons of answers that were not asked for: the row has none, its type is `none`, the request exceeds the context.
NO_ANSWER, KEPT, TOO_LONG = "no_answer_to_rewrite", "kept", "too_long"
# Of these, the ones that the user did not ask for.
UNASKED = (NO_ANSWER, TOO_LONG)
# The file of the records.
RECORDS = "provenance.jsonl"


@dataclass(frozen=True)
class AnswerRecord:
    """What became of one answer.

    Attributes:
        row: the row's index.
        turn: the answer's index among the row's messages; None for a row without an answer.
        provenance: `rewritten` or `reference`.
        reason: `accepted`, or why the reference is kept.
        answer_type: its type.
        type_chosen_by: what chose the type: `column`, `setting`, `dataset` or `reference`.
        sample: which sample was accepted; None if none was.
        hash: of everything that determines the generated text: the prompt, the model and the settings.
        reference: the original answer.
        rewrite: the accepted text, else the last rejected one.
    """

    row: int
    turn: int | None
    provenance: str
    reason: str
    answer_type: str | None = None
    type_chosen_by: str | None = None
    sample: int | None = None
    hash: str | None = None
    reference: str | None = None
    rewrite: str | None = None


def write_records(records: Iterable[AnswerRecord], path: Path) -> None:
    """Write records as JSON Lines, atomically."""
    write_text(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records))


def read_records(path: Path) -> list[AnswerRecord]:
    """Return the records of a file."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [AnswerRecord(**json.loads(line)) for line in lines if line]


def acceptance_summary(records: Sequence[AnswerRecord], rows: Sequence[Row]) -> dict[str, dict]:
    """Return acceptance by capability and by answer type, and the change of length.

    Returns:
        `by_capability` and `by_type`: for each name, and for `all`, the number of answers, the acceptance rate and the
        count of each reason; `types_chosen_by`: how many types each source chose; `length`: mean words of accepted
        rewrites, and of the references that they replace.
    """
    capabilities = [str(rows[record.row].get(CAPABILITY) or "unnamed") for record in records]
    types = [record.answer_type or "none" for record in records]
    return {
        "by_capability": _acceptance_by(capabilities, records),
        "by_type": _acceptance_by(types, records),
        "types_chosen_by": dict(Counter(record.type_chosen_by for record in records if record.type_chosen_by)),
        "length": _lengths([record for record in records if record.reason == ACCEPTED]),
    }


def _acceptance_by(names: Sequence[str], records: Sequence[AnswerRecord]) -> dict[str, dict]:
    groups: dict[str, list[AnswerRecord]] = {"all": list(records)}
    for name, record in zip(names, records, strict=True):
        groups.setdefault(name, []).append(record)
    if set(groups) == {"all", "unnamed"}:
        del groups["unnamed"]
    return {name: _acceptance(members) for name, members in groups.items()}


def _acceptance(records: Sequence[AnswerRecord]) -> dict:
    reasons = Counter(record.reason for record in records)
    return {
        "answers": len(records),
        "acceptance_rate": reasons[ACCEPTED] / max(len(records), 1),
        "reasons": dict(reasons),
    }


def _lengths(accepted: Sequence[AnswerRecord]) -> dict[str, float] | None:
    if not accepted:
        return None
    return {
        "reference_words": mean(len(record.reference.split()) for record in accepted),
        "rewrite_words": mean(len(record.rewrite.split()) for record in accepted),
    }
