"""Starter rows that put words, numbers, steps, events or units in order."""

import random
from itertools import combinations

from trl_prune.data.starter.files import Entry, Wordings, read_jsonl, read_yaml
from trl_prune.data.starter.row import StarterRow


_WORD_ROWS = 34
_NUMBER_ROWS = 28
_EVENT_ROWS = 22
_LONGEST_SCALE = 5


class WordList(Entry):
    """Words of one topic."""

    words: tuple[str, ...]


class Activity(Entry):
    """An activity with its steps in the right order."""

    activity: str
    steps: tuple[str, ...]


class Event(Entry):
    """A historical event with its year."""

    event: str
    year: int


class Scale(Entry):
    """What to put in order, with its members in the right order."""

    description: str
    members: tuple[str, ...]


class OrderingWordings(Entry):
    """The wordings by what is put in order; their slots are `items`, `first`, `last` and a few of each kind."""

    words: Wordings
    numbers: Wordings
    steps: Wordings
    events: Wordings
    scales: Wordings


def ordering(rng: random.Random) -> list[StarterRow]:
    """Return words, numbers, steps, events and units to put in order."""
    wordings = read_yaml("templates/ordering.yaml", OrderingWordings)
    lists = read_jsonl("tables/ordering_words.jsonl", WordList)
    activities = read_jsonl("tables/ordering_steps.jsonl", Activity)
    scales = read_jsonl("tables/ordering_scales.jsonl", Scale)
    return [
        *(_word_row(rng, wordings.words, lists[index % len(lists)].words) for index in range(_WORD_ROWS)),
        *(_number_row(rng, wordings.numbers) for _ in range(_NUMBER_ROWS)),
        *(_step_row(rng, wordings.steps, activity) for activity in activities),
        *(_event_row(rng, wordings.events, events) for events in rng.sample(_event_triples(), _EVENT_ROWS)),
        *(_scale_row(rng, wordings.scales, prompt, scale) for scale in scales for prompt in wordings.scales.prompts),
    ]


def _event_triples() -> list[tuple[Event, ...]]:
    """Return all sets of three events, each from earliest to latest, so that a sample never holds a set twice."""
    events = sorted(read_jsonl("tables/ordering_events.jsonl", Event), key=lambda event: event.year)
    return list(combinations(events, 3))


def _shuffled(rng: random.Random, members: list[str]) -> str:
    """Return the members in an order that differs from the given one."""
    shuffled = list(members)
    while shuffled == members:
        rng.shuffle(shuffled)
    return ", ".join(shuffled)


def _row(prompt: str, completion: str, members: list[str], **slots: str) -> StarterRow:
    """Return the row whose answer is the list of members; the completion has the slots still open."""
    answer = ", ".join(members)
    return StarterRow(
        prompt=prompt,
        completion=completion.format(items=answer, **{"first": members[0], "last": members[-1]} | slots),
        capability="ordering",
        answer_type="phrase",
        answer=answer,
    )


def _word_row(rng: random.Random, wordings: Wordings, pool: tuple[str, ...]) -> StarterRow:
    words = sorted(rng.sample(pool, rng.randint(4, 6)))
    prompt = rng.choice(wordings.prompts).format(items=_shuffled(rng, words))
    return _row(prompt, rng.choice(wordings.completions), words)


def _number_row(rng: random.Random, wordings: Wordings) -> StarterRow:
    falling = rng.random() < 0.5
    direction = "largest to smallest" if falling else "smallest to largest"
    top = rng.choice((50, 100, 1000))
    numbers = [str(number) for number in sorted(rng.sample(range(2, top), rng.randint(4, 6)), reverse=falling)]
    prompt = rng.choice(wordings.prompts).format(direction=direction, items=_shuffled(rng, numbers))
    return _row(prompt, rng.choice(wordings.completions), numbers, direction=direction)


def _step_row(rng: random.Random, wordings: Wordings, entry: Activity) -> StarterRow:
    steps = list(entry.steps)
    prompt = rng.choice(wordings.prompts).format(activity=entry.activity, items=_shuffled(rng, steps))
    return _row(prompt, rng.choice(wordings.completions), steps, activity=entry.activity)


def _event_row(rng: random.Random, wordings: Wordings, events: tuple[Event, ...]) -> StarterRow:
    names = [event.event for event in events]
    first, middle, last = (str(event.year) for event in events)
    prompt = rng.choice(wordings.prompts).format(items=_shuffled(rng, names))
    (completion,) = wordings.completions
    return _row(prompt, completion, names, first=first, middle=middle, last=last)


def _scale_row(rng: random.Random, wordings: Wordings, prompt: str, scale: Scale) -> StarterRow:
    size = min(len(scale.members), rng.randint(4, _LONGEST_SCALE))
    positions = sorted(rng.sample(range(len(scale.members)), size))
    members = [scale.members[position] for position in positions]
    (completion,) = wordings.completions
    return _row(prompt.format(description=scale.description, items=_shuffled(rng, members)), completion, members)
