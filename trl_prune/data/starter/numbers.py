"""Generators of starter rows whose final answer is a number."""

import operator
import random
from collections.abc import Callable

from trl_prune.data.starter.draft import Draft
from trl_prune.data.starter.problems import CONVERSIONS, STORIES, Conversion, Story
from trl_prune.data.starter.tables import CITIES, NAMES


_ROWS_PER_STORY = 5
_ROWS_PER_CONVERSION = 3

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}

_OPENERS = (
    "Let's work it out step by step. ",
    "We can solve this in small steps. ",
    "Here is the calculation. ",
    "",
)

_CONVERSION_QUESTIONS = (
    "How many {target} are there in {n} {source}?",
    "Convert {n} {source} into {target}.",
    "I have {n} {source}. What is that in {target}?",
    "Please work out how many {target} make up {n} {source}.",
    "What do {n} {source} come to when I count in {target}?",
)


def arithmetic_word_problems(rng: random.Random) -> list[Draft]:
    """Return word problems of one to three calculations with whole numbers."""
    return [draft for story in STORIES for draft in _distinct(story, rng)]


def unit_conversion(rng: random.Random) -> list[Draft]:
    """Return conversions between units of time, length, weight, volume and money."""
    return [draft for conversion in CONVERSIONS for draft in _conversions(conversion, rng)]


def _distinct(story: Story, rng: random.Random) -> list[Draft]:
    drafts: dict[str, Draft] = {}
    while len(drafts) < _ROWS_PER_STORY:
        draft = _word_problem(story, rng)
        drafts[draft.prompt] = draft
    return list(drafts.values())


def _word_problem(story: Story, rng: random.Random) -> Draft:
    numbers = _numbers(story, rng)
    name, other = rng.sample(NAMES, 2)
    words = {"name": name, "other": other, "city": rng.choice(CITIES), "thing": rng.choice(story.things)}
    answer = str(numbers[story.steps[-1][0]])
    reasoning = rng.choice(_OPENERS) + story.reasoning.format(**numbers, **words)
    return Draft(
        prompt=story.question.format(**numbers, **words),
        completion=f"{reasoning} The answer is {answer}.",
        answer_type="number",
        answer=answer,
    )


def _numbers(story: Story, rng: random.Random) -> dict[str, int]:
    while True:
        numbers = {slot: rng.randint(low, high) for slot, (low, high) in story.draws.items()}
        for result, left, sign, right in story.steps:
            numbers[result] = _OPERATORS[sign](numbers[left], numbers[right])
        # Every number above one keeps the nouns in the plural and the story free of debts.
        if min(numbers.values()) > 1:
            return numbers


def _conversions(conversion: Conversion, rng: random.Random) -> list[Draft]:
    questions = (conversion.question, *rng.sample(_CONVERSION_QUESTIONS, _ROWS_PER_CONVERSION - 1))
    low, high = conversion.span
    amounts = rng.sample(range(low, high + 1), len(questions))
    return [_conversion(conversion, question, amount) for question, amount in zip(questions, amounts, strict=True)]


def _conversion(conversion: Conversion, question: str, larger: int) -> Draft:
    smaller = larger * conversion.factor
    given, answer = (larger, smaller) if conversion.operator == "*" else (smaller, larger)
    source, target = conversion.source, conversion.target
    rule = "smaller, so we multiply" if conversion.operator == "*" else "larger, so we divide"
    calculation = f"{given} {conversion.operator} {conversion.factor} = {answer}"
    return Draft(
        prompt=question.format(n=given, source=source, target=target),
        completion=(
            f"{conversion.fact}. The new unit is {rule} by {conversion.factor}. "
            f"This means that {given} {source} make {calculation} {target}. The answer is {answer}."
        ),
        answer_type="number",
        answer=str(answer),
    )
