"""Generators of starter rows about facts, common sense and explanations."""

import random

from trl_prune.data.starter.draft import Draft
from trl_prune.data.starter.everyday import ADVICE, EXPLANATIONS, TOOLS
from trl_prune.data.starter.facts import CAPITALS, FACTS


_CAPITAL_QUESTIONS = (
    "What is the capital of {country}?",
    "Which city is the capital of {country}?",
    "Can you tell me the capital of {country}?",
    "I am planning a trip to {country}. What is the capital city?",
    "My geography homework is about {country}. Which city is its capital?",
)

_CAPITAL_ANSWERS = (
    "The capital of {country} is {capital}. {note}",
    "{capital} is the capital of {country}. {note}",
    "It is {capital}. {note}",
)

_EXPLANATION_REQUESTS = (
    "{question}",
    "{question}",
    "{question} Please explain it in simple words.",
    "{question} A short explanation is enough.",
    "Please answer in two or three sentences. {question}",
    "A curious child asked me this: {question}",
    "Explain briefly: {question}",
)


def facts(rng: random.Random) -> list[Draft]:
    """Return general knowledge questions with a short exact answer."""
    return [
        *(_capital(rng, country, capital, note) for country, capital, note in CAPITALS),
        *(Draft(question, completion, "phrase", answer) for question, answer, completion in FACTS),
    ]


def commonsense(rng: random.Random) -> list[Draft]:
    """Return questions about tools, sensible behavior and everyday reasons."""
    drafts = [
        *(Draft(question, completion, "phrase", answer) for question, answer, completion in TOOLS),
        *(Draft(question, completion, "open") for question, completion in ADVICE),
    ]
    rng.shuffle(drafts)
    return drafts


def short_explanation(rng: random.Random) -> list[Draft]:
    """Return everyday concepts to explain in two or three sentences."""
    return [
        Draft(rng.choice(_EXPLANATION_REQUESTS).format(question=question), explanation, "open")
        for question, explanation in EXPLANATIONS
    ]


def _capital(rng: random.Random, country: str, capital: str, note: str) -> Draft:
    return Draft(
        prompt=rng.choice(_CAPITAL_QUESTIONS).format(country=country),
        completion=rng.choice(_CAPITAL_ANSWERS).format(country=country, capital=capital, note=note),
        answer_type="phrase",
        answer=capital,
    )
