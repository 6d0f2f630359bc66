"""Starter rows with arithmetic word problems: templates filled with random numbers and their calculation."""

import operator
import random
from collections.abc import Callable

from trl_prune.data.starter.files import Entry, read_yaml
from trl_prune.data.starter.row import StarterRow
from trl_prune.data.starter.slots import slot_words


_ROWS_PER_PROBLEM = 5

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}


class WordProblem(Entry):
    """One word problem.

    Attributes:
        question: text with slots for numbers, people and things.
        draws: smallest and largest value of each number that is drawn at random.
        steps: calculations `result = left operator right`; the last result is the answer. Numbers that the
            question shows may be results too, which keeps divisions free of remainders.
        reasoning: solution text with the same slots.
        things: nouns to choose from for the slot `thing`.
    """

    question: str
    draws: dict[str, tuple[int, int]]
    steps: tuple[str, ...]
    reasoning: str
    things: tuple[str, ...] = ("",)


class WordProblems(Entry):
    """All word problems with the opening and the ending of their completions."""

    openings: tuple[str, ...]
    ending: str
    problems: tuple[WordProblem, ...]


def arithmetic_word_problems(rng: random.Random) -> list[StarterRow]:
    """Return word problems of one to three calculations with whole numbers."""
    templates = read_yaml("templates/arithmetic_word_problems.yaml", WordProblems)
    return [row for problem in templates.problems for row in _distinct_rows(rng, problem, templates)]


def _distinct_rows(rng: random.Random, problem: WordProblem, templates: WordProblems) -> list[StarterRow]:
    rows: dict[str, StarterRow] = {}
    while len(rows) < _ROWS_PER_PROBLEM:
        row = _row(rng, problem, templates)
        rows[row.prompt] = row
    return list(rows.values())


def _row(rng: random.Random, problem: WordProblem, templates: WordProblems) -> StarterRow:
    numbers = _numbers(rng, problem)
    words = slot_words()
    name, other = rng.sample(words.names, 2)
    slots = {"name": name, "other": other, "city": rng.choice(words.cities), "thing": rng.choice(problem.things)}
    answer = str(numbers[problem.steps[-1].split()[0]])
    reasoning = rng.choice(templates.openings) + problem.reasoning.format(**numbers, **slots)
    return StarterRow(
        prompt=problem.question.format(**numbers, **slots),
        completion=f"{reasoning} {templates.ending.format(answer=answer)}",
        capability="arithmetic",
        answer_type="number",
        answer=answer,
    )


def _numbers(rng: random.Random, problem: WordProblem) -> dict[str, int]:
    """Return the drawn numbers and the results of the steps by slot."""
    while True:
        numbers = {slot: rng.randint(low, high) for slot, (low, high) in problem.draws.items()}
        for step in problem.steps:
            result, _, left, sign, right = step.split()
            numbers[result] = _OPERATORS[sign](numbers[left], numbers[right])
        # Every number above one keeps the nouns in the plural and amounts of money positive.
        if min(numbers.values()) > 1:
            return numbers
