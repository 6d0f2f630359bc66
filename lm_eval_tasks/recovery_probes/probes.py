"""Build the datasets of the recovery probes from the tables beside this file."""

from __future__ import annotations

from configparser import ConfigParser
from hashlib import sha256
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from datasets import Dataset


TABLES = Path(__file__).parent / "tables"
CHOICES = 4
# Elements of a sequence that a prompt shows.
SHOWN = 3
Item = dict[str, Any]
Splits = dict[str, Dataset]

# lm-eval calls each builder below with the task's metadata and dataset_kwargs; `_` takes those that it does not use.


def cloze(capability: str, templates: dict[str, str] | None = None, choices: int = CHOICES, **_: object) -> Splits:
    """Build a multiple-choice probe from the table named after the capability."""
    items = []
    for section, answers in _table(capability).items():
        template = (templates or {}).get(section, "{}")
        pairs = _shuffled([(template.format(subject), answer) for subject, answer in answers.items()])
        candidates = [answer for _prompt, answer in pairs]
        # Wrong choices are the following rows' answers: a word is wrong about (choices - 1) times as often as right.
        items += [
            _choice_item(prompt, answer, _wrong_choices(answer, candidates[i:] + candidates[:i], choices - 1))
            for i, (prompt, answer) in enumerate(pairs)
        ]
    return _choice_split(items)


def completion(capability: str, template: str, **_: object) -> Splits:
    """Build a generative probe from the table named after the capability."""
    pairs = [pair for section in _table(capability).values() for pair in section.items()]
    return _split([{"prompt": template.format(subject), "answer": answer} for subject, answer in pairs])


def grammar(
    number: dict[str, int], tense: dict[str, int], reflexive: list[str], agreement: str, **_: object
) -> Splits:
    """Build minimal pairs of agreement, number, tense and reflexive pronouns."""
    words = {name: [tuple(word.split("/")) for word in _words("pairs", name)] for name in _table("words")["pairs"]}
    items = _agreement(agreement, words["people"] + words["things"], words["agreement"])
    for frames, pairs in ((number, words["things"]), (tense, words["past"])):
        for (frame, right), (person, pair) in product(frames.items(), zip(words["people"], pairs, strict=True)):
            items.append(_minimal_pair(frame.format(person[1]), pair, right))
    names_by_gender = list(enumerate((_words("names", "male"), _words("names", "female"))))
    for frame, (right, names) in product(reflexive, names_by_gender):
        items += [_minimal_pair(frame.format(name), ("himself", "herself"), right) for name in names]
    return _choice_split(items)


def sequences(steps: dict[int, int], **_: object) -> Splits:
    """Build well-known series, counting sequences and alternating patterns; the answer is the next element."""
    series = [words.split() for words in _table("words")["series"].values()]
    series += [_counting_sequence(step, length) for step, length in steps.items()]
    items = []
    for sequence in series:
        for start in range(len(sequence) - SHOWN):
            end = start + SHOWN
            prompt, answer = ", ".join(sequence[start:end]) + ",", sequence[end]
            # The answer's rank among the choices varies, so that always picking the smallest or largest gains nothing.
            window = [sequence[(end - start % CHOICES + k) % len(sequence)] for k in range(CHOICES)]
            items.append(_choice_item(prompt, answer, _wrong_choices(answer, window, CHOICES - 1)))
    return _choice_split(items + _alternating_patterns())


def pronouns(frames: list[str], **_: object) -> Splits:
    """Build sentences about a woman and a man, one of whom the right pronoun refers to."""
    couples = list(zip(_words("names", "female"), _words("names", "male"), strict=True))
    items = []
    for (i, frame), (j, couple) in product(enumerate(frames), enumerate(couples)):
        # The order of the names and the gender of the answer both alternate, so that neither predicts the answer.
        first, second = couple if (i + j) % 2 else couple[::-1]
        right = (i + j) // 2 % 2
        items.append(_minimal_pair(frame.format(a=first, b=second, c=couple[right]), ("she", "he"), right))
    return _choice_split(items)


def arithmetic(gains: list[str], losses: list[str], count: int, **_: object) -> Splits:
    """Build one-step word problems of addition and subtraction."""
    things, names = _words("counting", "things"), _words("names", "female") + _words("names", "male")
    summands = cycle(_shuffled(list(product(range(2, 10), range(2, 10)))))
    items = []
    for i, (a, b) in enumerate(islice(summands, count)):
        words = {"name": names[i * 7 % len(names)], "things": things[i * 3 % len(things)], "b": b}
        frames, before, after = (gains, a, a + b) if i % 2 else (losses, a + b, a)
        items.append({"prompt": frames[i // 2 % len(frames)].format(a=before, **words), "answer": str(after)})
    return _split(items)


def extraction(text: str, fields: dict[str, str], count: int, **_: object) -> Splits:
    """Build short records; the answer is one of their fields."""
    values = {key: words.split() for key, words in _table("words")["records"].items()}
    values["name"] = _words("names", "female") + _words("names", "male")
    items = []
    for i in range(count):
        record = {key: _shuffled(words, salt=f"{i}{key}")[0] for key, words in values.items()}
        key = list(fields)[i % len(fields)]
        items.append({"prompt": f"{text.format(**record)}\n{fields[key]}", "answer": record[key]})
    return _split(items)


def _agreement(frame: str, nouns: list[tuple[str, ...]], verbs: list[tuple[str, ...]]) -> list[Item]:
    items = []
    for i, (number, noun) in enumerate(product((0, 1), nouns)):
        # The noun next to the verb has the other number, so that agreeing with it is wrong.
        attractor = nouns[(i * 7 + 5) % len(nouns)][1 - number]
        items.append(_minimal_pair(frame.format(noun[number], attractor), verbs[i % len(verbs)], number))
    return items


def _counting_sequence(step: int, length: int) -> list[str]:
    numbers = [str(abs(step) * (i + 2)) for i in range(length)]
    return numbers if step > 0 else numbers[::-1]


def _alternating_patterns() -> list[Item]:
    pairs = [word.split("/") for word in _words("pairs", "alternating")]
    items = []
    for i, (length, pair) in enumerate(product((SHOWN, SHOWN + 1), pairs)):
        shown = list(islice(cycle(pair), length))
        wrong = [pair[1 - length % 2], *pairs[(i + 1) % len(pairs)]]
        items.append(_choice_item(", ".join(shown) + ",", pair[length % 2], wrong))
    return items


def _minimal_pair(prompt: str, pair: tuple[str, ...], right: int) -> Item:
    return _choice_item(prompt, pair[right], [pair[1 - right]])


def _choice_item(prompt: str, answer: str, wrong: list[str]) -> Item:
    return {"prompt": prompt, "answer": answer, "wrong": wrong}


def _wrong_choices(answer: str, candidates: list[str], count: int) -> list[str]:
    wrong = [word for word in dict.fromkeys(candidates) if word != answer]
    if len(wrong) < count:
        raise ValueError(f"{answer!r} has {len(wrong)} wrong choices; wanted: {count}")
    return wrong[:count]


def _choice_split(items: list[Item]) -> Splits:
    docs = []
    for i, item in enumerate(_shuffled(items)):
        label = i % (len(item["wrong"]) + 1)
        choices = [*item["wrong"][:label], item["answer"], *item["wrong"][label:]]
        docs.append({"prompt": item["prompt"], "choices": choices, "label": label})
    return {"test": Dataset.from_list(docs)}


def _split(items: list[Item]) -> Splits:
    return {"test": Dataset.from_list(_shuffled(items))}


def _shuffled(values: list[Any], salt: str = "") -> list[Any]:
    # By digest instead of a random generator: the order is the same on every machine and Python version.
    return sorted(values, key=lambda value: sha256(f"{salt}{value}".encode()).hexdigest())


def _words(section: str, key: str) -> list[str]:
    return _table("words")[section][key].split()


def _table(name: str) -> dict[str, dict[str, str]]:
    parser = ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keep the case of subjects
    parser.read_string((TABLES / f"{name}.ini").read_text(encoding="utf-8"))
    return {section: dict(parser[section]) for section in parser.sections()}
