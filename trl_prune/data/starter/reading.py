"""Generators of starter rows that find something in a passage or put things in order."""

import random
import re
from itertools import combinations

from trl_prune.data.starter import tables as tables
from trl_prune.data.starter.draft import Draft
from trl_prune.data.starter.passages import HISTORY, PASSAGES, SCALES, STEPS


# "Dr." ends no sentence.
_SENTENCE_END = re.compile(r"(?<=[.?!])(?<!Dr\.) ")

_READINGS_PER_QUESTION = 3
_WORD_ROWS = 34
_NUMBER_ROWS = 28
_HISTORY_ROWS = 22
_LONGEST_SCALE = 5

# All sets of three events, so that drawing from them never gives the same set twice.
_EVENT_CHOICES = tuple(combinations(sorted(HISTORY, key=lambda event: event[1]), 3))

# Hours at which offices, gates and rehearsals plausibly open.
_HOURS = tuple(
    f"{hour}:{{minutes}} {half}" for hour, half in ((9, "am"), (10, "am"), (11, "am"), (2, "pm"), (6, "pm"), (7, "pm"))
)

_READING_REQUESTS = (
    "Read the text and answer the question.\n\nText: {passage}\n\nQuestion: {question}",
    "{passage}\n\n{question}",
    'Here is a short text: "{passage}" {question}',
    "{question} Use the following text.\n\n{passage}",
    "Please look this up in the text below: {question}\n\n{passage}",
    "Based on this passage, answer the question.\n\n{passage}\n\n{question}",
)

_READING_EVIDENCE = (
    'The text says: "{evidence}"',
    'This can be found in the part that reads: "{evidence}"',
    'The relevant part is: "{evidence}"',
)

_WORD_REQUESTS = (
    "Sort these words alphabetically, separated by commas: {items}",
    "Put the following words in alphabetical order: {items}. Separate them with commas.",
    "I need this list from A to Z, with commas between the words: {items}",
    "In which order would these words appear in a dictionary? Please list them with commas. {items}",
)

_WORD_REPLIES = (
    "In alphabetical order, the words are: {items}. The list starts with {first} and ends with {last}.",
    "Sorted from A to Z, the list is: {items}. Where words share their first letter, the next letters decide.",
    "The words in alphabetical order are: {items}.",
)

_NUMBER_REQUESTS = (
    "Sort these numbers from {direction}, separated by commas: {items}",
    "Arrange the numbers {items} from {direction} and separate them with commas.",
    "Please order the following numbers from {direction}, with commas between them.\n\n{items}",
)

_NUMBER_REPLIES = (
    "From {direction}, the numbers are: {items}.",
    "Sorted from {direction}, the order is: {items}. The first number is {first} and the last one is {last}.",
    "The numbers arranged from {direction} are: {items}. I compared them by size, and {first} has to come first.",
)

_STEP_REQUESTS = (
    "Put these steps of {activity} in the right order, separated by commas: {items}",
    "What is the correct order of these stages of {activity}? Use commas between them. {items}",
    "Someone mixed up {activity}. Please sort the parts in time order, with commas between them.\n\n{items}",
)

_STEP_REPLIES = (
    "For {activity}, the right order is: {items}. Each part follows naturally from the one before it.",
    "The correct order is: {items}. So {activity} starts with the part '{first}' and ends with '{last}'.",
)

_HISTORY_REQUESTS = (
    "Put these events in order from earliest to latest, separated by commas: {items}",
    "Which of these events came first? List all of them in time order with commas between them: {items}",
    "Arrange the following events by date, oldest first, and separate them with commas.\n\n{items}",
)

_HISTORY_REPLY = "From earliest to latest, the events are: {items}. They date from {first}, {middle} and {last}."

_SCALE_REQUESTS = (
    "Arrange {what}, separated by commas: {items}",
    "Please sort {what} and put commas between them. {items}",
)

_SCALE_REPLY = "The right order is: {items}. The first one is {first} and the last one is {last}."


def extraction(rng: random.Random) -> list[Draft]:
    """Return short passages with a question about a name, date, price, place or time."""
    return [
        _reading(rng, passage, question)
        for passage, questions in PASSAGES
        for question in questions
        for _ in range(_READINGS_PER_QUESTION)
    ]


def ordering(rng: random.Random) -> list[Draft]:
    """Return words, numbers, steps, events and units to put in order."""
    return [
        *(_words(rng, tables.WORD_POOLS[index % len(tables.WORD_POOLS)]) for index in range(_WORD_ROWS)),
        *(_numbers(rng) for _ in range(_NUMBER_ROWS)),
        *(_steps(rng, activity, steps) for activity, steps in STEPS),
        *(_history(rng, events) for events in rng.sample(_EVENT_CHOICES, _HISTORY_ROWS)),
        *(
            _scale(rng, request.format(what=what, items="{items}"), members)
            for what, members in SCALES
            for request in _SCALE_REQUESTS
        ),
    ]


def _reading(rng: random.Random, passage: str, question: tuple[str, str, str]) -> Draft:
    slot, query, reply = question
    slots = _slots(rng)
    text = passage.format(**slots)
    prompt = rng.choice(_READING_REQUESTS).format(passage=text, question=query)
    evidence = next(sentence for sentence in _SENTENCE_END.split(text) if slots[slot] in sentence)
    completion = f"{reply.format(**slots)} {rng.choice(_READING_EVIDENCE).format(evidence=evidence)}"
    return Draft(prompt, completion, "phrase", slots[slot])


def _slots(rng: random.Random) -> dict[str, str]:
    name, other = (f"{first} {rng.choice(tables.SURNAMES)}" for first in rng.sample(tables.NAMES, 2))
    return {
        "name": name,
        "other": other,
        "city": rng.choice(tables.CITIES),
        "date": f"{rng.choice(tables.MONTHS)} {rng.randint(1, 28)}",
        "time": rng.choice(_HOURS).format(minutes=rng.choice(("00", "10", "15", "30", "45"))),
        "price": f"${rng.randint(18, 480)}",
        "year": str(rng.randint(1890, 1985)),
        "item": rng.choice(tables.ITEMS),
        "company": rng.choice(tables.COMPANIES),
        "festival": rng.choice(tables.FESTIVALS),
        "place": rng.choice(tables.LANDMARKS),
        "job": rng.choice(tables.JOBS),
        "pet": rng.choice(tables.PETS),
        # The prefix 555-01 is reserved for invented phone numbers.
        "phone": f"555-01{rng.randint(10, 99)}",
        "flight": f"{rng.choice('BHKNQV')}{rng.choice('LRTX')} {rng.randint(110, 989)}",
        "gate": f"{rng.choice('ABCD')}{rng.randint(1, 30)}",
    }


def _mixed(rng: random.Random, members: list[str]) -> str:
    """Return the members in an order that differs from the given one."""
    mixed = list(members)
    while mixed == members:
        rng.shuffle(mixed)
    return ", ".join(mixed)


def _ordered(prompt: str, reply: str, members: list[str], **words: str) -> Draft:
    answer = ", ".join(members)
    completion = reply.format(items=answer, first=members[0], last=members[-1], **words)
    return Draft(prompt, completion, "phrase", answer)


def _words(rng: random.Random, pool: tuple[str, ...]) -> Draft:
    words = sorted(rng.sample(pool, rng.randint(4, 6)))
    prompt = rng.choice(_WORD_REQUESTS).format(items=_mixed(rng, words))
    return _ordered(prompt, rng.choice(_WORD_REPLIES), words)


def _numbers(rng: random.Random) -> Draft:
    falling = rng.random() < 0.5
    direction = "largest to smallest" if falling else "smallest to largest"
    top = rng.choice((50, 100, 1000))
    numbers = [str(number) for number in sorted(rng.sample(range(2, top), rng.randint(4, 6)), reverse=falling)]
    prompt = rng.choice(_NUMBER_REQUESTS).format(direction=direction, items=_mixed(rng, numbers))
    return _ordered(prompt, rng.choice(_NUMBER_REPLIES), numbers, direction=direction)


def _steps(rng: random.Random, activity: str, steps: tuple[str, ...]) -> Draft:
    members = list(steps)
    prompt = rng.choice(_STEP_REQUESTS).format(activity=activity, items=_mixed(rng, members))
    return _ordered(prompt, rng.choice(_STEP_REPLIES), members, activity=activity)


def _history(rng: random.Random, events: tuple[tuple[str, int], ...]) -> Draft:
    names = [name for name, _ in events]
    first, middle, last = (str(year) for _, year in events)
    answer = ", ".join(names)
    return Draft(
        prompt=rng.choice(_HISTORY_REQUESTS).format(items=_mixed(rng, names)),
        completion=_HISTORY_REPLY.format(items=answer, first=first, middle=middle, last=last),
        answer_type="phrase",
        answer=answer,
    )


def _scale(rng: random.Random, request: str, members: tuple[str, ...]) -> Draft:
    size = min(len(members), rng.randint(4, _LONGEST_SCALE))
    positions = sorted(rng.sample(range(len(members)), size))
    chosen = [members[position] for position in positions]
    prompt = request.format(items=_mixed(rng, chosen))
    return _ordered(prompt, _SCALE_REPLY, chosen)
