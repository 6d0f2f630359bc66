"""Starter rows that ask for a detail of a short passage."""

import random
import re

from trl_prune.data.starter.files import Entry, read_yaml
from trl_prune.data.starter.row import StarterRow
from trl_prune.data.starter.slots import slot_words


# "Dr." ends no sentence.
_SENTENCE_END = re.compile(r"(?<=[.?!])(?<!Dr\.) ")

_ROWS_PER_QUESTION = 3


class Question(Entry):
    """The slot that is asked for, a question and an answer sentence."""

    slot: str
    question: str
    reply: str


class Passage(Entry):
    """A passage with slots and its questions."""

    passage: str
    questions: tuple[Question, ...]


class Passages(Entry):
    """All passages, prompts with the slots `passage` and `question`, and wordings that quote the evidence."""

    prompts: tuple[str, ...]
    evidence: tuple[str, ...]
    passages: tuple[Passage, ...]


def extraction(rng: random.Random) -> list[StarterRow]:
    """Return short passages with a question about a name, date, price, place or time."""
    templates = read_yaml("templates/extraction.yaml", Passages)
    return [
        _row(rng, templates, entry.passage, question)
        for entry in templates.passages
        for question in entry.questions
        for _ in range(_ROWS_PER_QUESTION)
    ]


def _row(rng: random.Random, templates: Passages, passage: str, question: Question) -> StarterRow:
    slots = _slots(rng)
    text = passage.format(**slots)
    prompt = rng.choice(templates.prompts).format(passage=text, question=question.question)
    answer = slots[question.slot]
    evidence = next(sentence for sentence in _SENTENCE_END.split(text) if answer in sentence)
    return StarterRow(
        prompt=prompt,
        completion=f"{question.reply.format(**slots)} {rng.choice(templates.evidence).format(evidence=evidence)}",
        capability="extraction",
        answer_type="phrase",
        answer=answer,
    )


def _slots(rng: random.Random) -> dict[str, str]:
    words = slot_words()
    name, other = (f"{first} {rng.choice(words.surnames)}" for first in rng.sample(words.names, 2))
    return {
        "name": name,
        "other": other,
        "city": rng.choice(words.cities),
        "date": f"{rng.choice(words.months)} {rng.randint(1, 28)}",
        "time": rng.choice(words.times).format(minutes=rng.choice(words.minutes)),
        "price": f"${rng.randint(18, 480)}",
        "year": str(rng.randint(1890, 1985)),
        "item": rng.choice(words.items),
        "company": rng.choice(words.companies),
        "festival": rng.choice(words.festivals),
        "place": rng.choice(words.landmarks),
        "job": rng.choice(words.jobs),
        "pet": rng.choice(words.pets),
        # The prefix 555-01 is reserved for invented phone numbers.
        "phone": f"555-01{rng.randint(10, 99)}",
        "flight": f"{rng.choice('BHKNQV')}{rng.choice('LRTX')} {rng.randint(110, 989)}",
        "gate": f"{rng.choice('ABCD')}{rng.randint(1, 30)}",
    }
