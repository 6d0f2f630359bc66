"""Starter rows that convert units: templates filled with random amounts and their calculation."""

import random
from typing import Literal

from trl_prune.data.starter.files import Entry, read_jsonl, read_yaml
from trl_prune.data.starter.row import StarterRow


_ROWS_PER_CONVERSION = 3


class Conversion(Entry):
    """The conversion of one unit into another.

    Attributes:
        source: unit that is given, in the plural.
        target: unit that is asked for, in the plural.
        operator: `*` when the target is the smaller unit, `/` otherwise.
        factor: how many of the smaller unit make up the larger one.
        span: smallest and largest number of larger units.
        fact: the relation between both units as the start of a sentence.
        question: an everyday question with the slot `n`.
    """

    source: str
    target: str
    operator: Literal["*", "/"]
    factor: int
    span: tuple[int, int]
    fact: str
    question: str


class ConversionWordings(Entry):
    """Prompts for all conversions, the rule for each operator and the completion."""

    prompts: tuple[str, ...]
    rules: dict[str, str]
    completion: str


def conversions() -> tuple[Conversion, ...]:
    """Return the entries of `tables/unit_conversion.jsonl`."""
    return read_jsonl("tables/unit_conversion.jsonl", Conversion)


def unit_conversion(rng: random.Random) -> list[StarterRow]:
    """Return conversions between units of time, length, weight, volume and money."""
    return [row for conversion in conversions() for row in _rows(rng, conversion)]


def _rows(rng: random.Random, conversion: Conversion) -> list[StarterRow]:
    wordings = read_yaml("templates/unit_conversion.yaml", ConversionWordings)
    prompts = (conversion.question, *rng.sample(wordings.prompts, _ROWS_PER_CONVERSION - 1))
    low, high = conversion.span
    amounts = rng.sample(range(low, high + 1), len(prompts))
    return [_row(conversion, wordings, prompt, amount) for prompt, amount in zip(prompts, amounts, strict=True)]


def _row(conversion: Conversion, wordings: ConversionWordings, prompt: str, larger: int) -> StarterRow:
    """Return the row for an amount of the larger unit."""
    smaller = larger * conversion.factor
    given, answer = (larger, smaller) if conversion.operator == "*" else (smaller, larger)
    slots = conversion.model_dump(exclude={"span", "question"})
    rule = wordings.rules[conversion.operator].format(**slots)
    return StarterRow(
        prompt=prompt.format(n=given, **slots),
        completion=wordings.completion.format(given=given, rule=rule, answer=answer, **slots),
        capability="unit_conversion",
        answer_type="number",
        answer=str(answer),
    )
