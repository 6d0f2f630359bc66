"""The questions of acceptance.py: instructions with a reference answer, a wrong one, and a hidden truth.

The truth is known from what a rule of acceptance does not see: the index of the right choice, the number, the label.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trl_prune.data.starter import starter_rows
from trl_prune.data.starter.sentences import corrections


KINDS = ("number", "choice", "phrase", "class", "open")
GSM8K, CHOICES, NUMBERS, PHRASES, YES_NO, ROLEPLAY = 12, 28, 12, 28, 20, 8
OPEN = {"short_explanation": 14, "commonsense": 8, "rewriting": 8}
LABELS = {
    "sentiment": ("positive", "negative", "neutral"),
    "topic": ("sports", "cooking", "technology", "travel", "finance", "health"),
    "spam": ("spam", "legitimate"),
    "intent": ("complaint", "request", "question", "praise"),
}
NEGATORS = re.compile(r"\b(?:not|no|never|neither|nor|without|rather than|instead of)\b|n't\b")
WORDS_OF_LONGEST_ANSWER = 60


@dataclass(frozen=True)
class Question:
    """An instruction with its reference answer.

    Attributes:
        name: unique; decides which half the question's pairs belong to.
        kind: one of `KINDS`.
        instruction: what the user asks.
        reference: the right answer.
        wrong_reference: a wrong answer of the same form, None for open questions.
        truth: returns whether a text agrees with the reference, or None if that is doubtful.
        labels: the labels to choose from, the right one first.
    """

    name: str
    kind: str
    instruction: str
    reference: str
    wrong_reference: str | None
    truth: Callable[[str], bool | None]
    labels: tuple[str, ...] = ()


def questions(data: Path) -> list[Question]:
    """Return all questions, the same at every call."""
    rng = random.Random(0)
    starter = [
        row | {"prompt": row["prompt"][0]["content"], "completion": row["completion"][0]["content"]}
        for row in starter_rows()
    ]
    return [
        *_gsm8k(data, rng),
        *_starter_numbers(starter, rng),
        *_choices(data, rng),
        *_phrases(starter, rng),
        *_labels(starter, rng),
        *_yes_no(data, rng),
        *_open(starter, rng),
        *_roleplay(data, rng),
    ]


def read_rows(path: Path) -> list[dict]:
    """Return the rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def contains_phrase(text: str, phrase: str) -> bool:
    """Return whether a text contains a phrase as whole words, ignoring case, spacing and a final full stop."""
    text, phrase = (" ".join(part.lower().split()).rstrip(".!") for part in (text, phrase))
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) is not None


def numbers_of(text: str) -> list[float]:
    """Return the numbers of a text in their order."""
    return [float(number.replace(",", "")) for number in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)]


def most_similar(text: str, others: list[str]) -> int:
    """Return the index of the text that shares most words with the given one."""
    words = set(text.lower().split())
    return max(range(len(others)), key=lambda index: _jaccard(words, set(others[index].lower().split())))


def _jaccard(left: set[str], right: set[str]) -> float:
    return len(left & right) / max(len(left | right), 1)


def _gsm8k(data, rng):
    for item in rng.sample(read_rows(data / "gsm8k.jsonl"), GSM8K):
        reasoning, answer = item["answer"].split("\n#### ")
        wrong = _other_number(answer, rng)
        if rng.random() < 0.5:
            reference, wrong_reference = item["answer"], f"{reasoning.replace(answer, wrong)}\n#### {wrong}"
        else:
            reference, wrong_reference = f"The answer is {answer}.", f"The answer is {wrong}."
        yield Question(item["question"], "number", item["question"], reference, wrong_reference, _number_truth(answer))


def _starter_numbers(starter, rng):
    rows = [row for row in starter if row["answer_type"] == "number"]
    for row in rng.sample(rows, NUMBERS):
        wrong = _other_number(row["answer"], rng)
        wrong_reference = re.sub(rf"(?<![\d.]){re.escape(row['answer'])}(?![\d]|\.\d)", wrong, row["completion"])
        truth = _number_truth(row["answer"])
        yield Question(row["prompt"], "number", row["prompt"], row["completion"], wrong_reference, truth)


def _other_number(number, rng):
    value = float(number.replace(",", ""))
    other = value + rng.choice([-2, -1, 1, 2, 5, 10, round(value) or 3])
    return f"{other if other > 0 else value + 7:g}"


def _number_truth(answer):
    right = float(answer.replace(",", ""))

    def truth(text):
        answers = {
            numbers_of(found)[0] for found in re.findall(r"(?:answer is|####)[^\d\n]*(?:[\d][\d,.]*)", text.lower())
        }
        last = numbers_of(re.split(r"(?<=[.!?])\s+|\n", text.strip())[-1])
        if len(answers) == 1:
            return answers == {right}
        return set(last) == {right} if not answers and len(set(last)) == 1 else None

    return truth


def _choices(data, rng):
    items = [
        item for name in ("arc_easy", "arc_challenge", "openbookqa") for item in read_rows(data / f"{name}.jsonl")
    ]
    for number, item in enumerate(rng.sample([item for item in items if _is_clear(item)], CHOICES)):
        choices = [choice.strip().rstrip(".") for choice in item["choices"]]
        right = choices[item["answer"]]
        wrong = rng.choice([choice for choice in choices if choice != right])
        instruction = item["question"]
        if number % 2:
            instruction += f" Choose one: {', '.join(choices[:-1])} or {choices[-1]}."
        form = rng.choice(["{}", "The answer is {}.", "I would say {}."])
        yield Question(
            item["question"], "choice", instruction, form.format(right), form.format(wrong), _named(right, choices)
        )


def _is_clear(item):
    choices = [choice.lower().strip(" .") for choice in item["choices"]]
    nested = any(one != other and one in other for one in choices for other in choices)
    asked = any(contains_phrase(item["question"], choice) for choice in choices)
    short = all(len(choice.split()) <= 6 for choice in choices) and len(item["question"].split()) <= 40
    return short and not nested and not asked and len(set(choices)) == len(choices)


def _named(right, choices):
    def truth(text):
        named = [choice for choice in choices if contains_phrase(text, choice)]
        if len(named) != 1 or is_negated(text, named[0]):
            return None
        return named[0] == right

    return truth


def is_negated(text: str, phrase: str) -> bool:
    """Return whether a negator stands shortly before a phrase, or anywhere in its clause before it."""
    position = text.lower().find(phrase.lower())
    clause = re.split(r"[.;:!?]", text[:position].lower())[-1]
    return NEGATORS.search(clause) is not None


def _phrases(starter, rng):
    right_to_wrong = {
        re.sub(r"\{([^|{}]+)\|([^|{}]+)\}", r"\2", entry.sentence): re.sub(
            r"\{([^|{}]+)\|([^|{}]+)\}", r"\1", entry.sentence
        )
        for entry in corrections()
    }
    rows = [row for row in starter if row["answer_type"] == "phrase" and row["capability"] != "classification"]
    for row in rng.sample(rows, PHRASES):
        answer = row["answer"]
        wrong = right_to_wrong.get(answer) or _wrong_phrase(row, rows, rng)
        wrong_reference = re.sub(re.escape(answer), lambda _, wrong=wrong: wrong, row["completion"], flags=re.I)
        short = rng.random() < 0.33 and row["capability"] != "grammar"
        references = (answer, wrong) if short else (row["completion"], wrong_reference)
        yield Question(row["prompt"], "phrase", row["prompt"], *references, _phrase_truth(answer, wrong))


def _wrong_phrase(row, rows, rng):
    if row["capability"] == "ordering":
        members = row["answer"].split(", ")
        while ", ".join(members) == row["answer"]:
            rng.shuffle(members)
        return ", ".join(members)
    taken = row["completion"].lower()
    others = [
        other
        for other in rows
        if other["capability"] == row["capability"]
        and other["answer"].lower() not in taken
        and _form(other["answer"]) == _form(row["answer"])
    ]
    return others[most_similar(row["prompt"], [other["prompt"] for other in others])]["answer"]


def _form(answer):
    return bool(re.search(r"\d", answer)), answer[0].isupper(), "$" in answer, "am" in answer or "pm" in answer


def _phrase_truth(right, wrong):
    def truth(text):
        has_right, has_wrong = contains_phrase(text, right), contains_phrase(text, wrong)
        return None if has_right == has_wrong else has_right

    return truth


def _labels(starter, rng):
    for row in starter:
        if row["capability"] != "classification" or rng.random() < 0.75:
            continue
        right = row["answer"]
        labels = next(labels for labels in LABELS.values() if right in labels)
        others = [label for label in labels if label != right]
        form = rng.choice(["{}", "This is {}.", row["completion"]])
        wrong = (form if "{}" in form else "This is {}.").format(rng.choice(others))
        yield Question(
            row["prompt"],
            "class",
            row["prompt"],
            form.format(right),
            wrong,
            _label_truth(right, labels),
            (right, *others),
        )


def _label_truth(right, labels):
    def truth(text):
        named = [label for label in labels if contains_phrase(text, label)]
        if len(named) != 1:
            return None
        if not is_negated(text, named[0]):
            return named[0] == right
        return named[0] != right if len(labels) == 2 else None

    return truth


def _yes_no(data, rng):
    items = [item for item in read_rows(data / "boolq_closedbook.jsonl") if len(item["question"].split()) >= 6]
    for number, item in enumerate(rng.sample(items, YES_NO)):
        says_yes = item["choices"][item["answer"]] == "true"
        references = [("Yes.", "No."), ("Yes, that is right.", "No, that is not right."), ("yes", "no")][number % 3]
        reference, wrong = references if says_yes else references[::-1]
        question = item["question"].rstrip("?").capitalize() + "?"
        labels = ("yes", "no") if says_yes else ("no", "yes")
        yield Question(question, "class", question, reference, wrong, _yes_no_truth(says_yes), labels)


def _yes_no_truth(says_yes):
    def truth(text):
        first = re.match(r"\W*(yes|no)\b", text.lower())
        if first is None or re.search(rf"\b{'no' if first[1] == 'yes' else 'yes'},", text.lower()):
            return None
        return (first[1] == "yes") == says_yes

    return truth


def _open(starter, rng):
    for capability, count in OPEN.items():
        rows = [row for row in starter if row["capability"] == capability and row["answer_type"] == "open"]
        for row in rng.sample(rows, count):
            truth = _quote_truth(row["completion"], row["prompt"])
            yield Question(row["prompt"], "open", row["prompt"], row["completion"], None, truth)


def _quote_truth(reference, instruction):
    """Return the truth by the sentence that a reference quotes; without one, a rewrite of it is taken to agree."""
    quotes = [quote for quote in re.findall(r'"([^"]+)"', reference) if not contains_phrase(instruction, quote)]
    return lambda text: all(contains_phrase(text, quote) for quote in quotes) or None


def _roleplay(data, rng):
    rows = [
        row
        for row in read_rows(data / "roleplay_instructions.jsonl")
        if not row["input"] and 15 <= len(row["output"].split()) <= WORDS_OF_LONGEST_ANSWER
    ]
    for row in rng.sample(rows, ROLEPLAY):
        yield Question(row["instruction"], "open", row["instruction"], row["output"], None, lambda _: True)
