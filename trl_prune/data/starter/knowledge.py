"""Starter rows about facts, common sense and explanations."""

import random

from trl_prune.data.starter.files import Entry, Wordings, read_jsonl, read_yaml
from trl_prune.data.starter.row import StarterRow


class Capital(Entry):
    """A country, its capital and one sentence about the capital."""

    country: str
    capital: str
    note: str


class Explanation(Entry):
    """A question and an explanation of two or three sentences."""

    question: str
    explanation: str


class ExplanationWordings(Entry):
    """Prompts that ask for an explanation, with the slot `question`."""

    prompts: tuple[str, ...]


def facts(rng: random.Random) -> list[StarterRow]:
    """Return general knowledge questions with a short exact answer."""
    wordings = read_yaml("templates/capitals.yaml", Wordings)
    return [
        *(_capital_row(rng, capital, wordings) for capital in read_jsonl("tables/capitals.jsonl", Capital)),
        *read_jsonl("rows/facts.jsonl", StarterRow),
    ]


def commonsense(rng: random.Random) -> list[StarterRow]:
    """Return questions about tools and sensible behavior."""
    rows = list(read_jsonl("rows/commonsense.jsonl", StarterRow))
    rng.shuffle(rows)
    return rows


def short_explanation(rng: random.Random) -> list[StarterRow]:
    """Return everyday concepts to explain in two or three sentences."""
    wordings = read_yaml("templates/short_explanation.yaml", ExplanationWordings)
    return [
        StarterRow(
            prompt=rng.choice(wordings.prompts).format(question=entry.question),
            completion=entry.explanation,
            capability="short_explanation",
            answer_type="open",
        )
        for entry in read_jsonl("tables/short_explanation.jsonl", Explanation)
    ]


def _capital_row(rng: random.Random, entry: Capital, wordings: Wordings) -> StarterRow:
    return StarterRow(
        prompt=rng.choice(wordings.prompts).format(country=entry.country),
        completion=rng.choice(wordings.completions).format(**entry.model_dump()),
        capability="facts",
        answer_type="phrase",
        answer=entry.capital,
    )
