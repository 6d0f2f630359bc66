"""Starter rows that correct, rewrite or classify a sentence."""

import random
import re

from trl_prune.data.starter.files import Entry, Wordings, read_jsonl, read_yaml
from trl_prune.data.starter.row import StarterRow


# {wrong words|right words}
_MISTAKE = re.compile(r"\{([^|{}]+)\|([^|{}]+)\}")


class Correction(Entry):
    """The kind of a mistake and a sentence in which `{wrong|right}` stands for the mistake and its correction."""

    mistake: str
    sentence: str


class GrammarWordings(Entry):
    """Prompts, and the three parts of a completion; reasons and rules by the kind of mistake."""

    prompts: tuple[str, ...]
    introductions: tuple[str, ...]
    reasons: dict[str, tuple[str, ...]]
    rules: dict[str, str]


class Rewriting(Entry):
    """A sentence and its rewritten form in one style, such as `formal`."""

    style: str
    sentence: str
    rewritten: str


class LabeledText(Entry):
    """A text with its label in one classification task, and the reason as the end of a sentence."""

    task: str
    text: str
    label: str
    reason: str


class ClassificationWordings(Wordings):
    """The wordings of one task, a closing sentence by label, and phrases that replace a label in completions."""

    closings: dict[str, str]
    label_phrases: dict[str, str] = {}


def corrections() -> tuple[Correction, ...]:
    """Return the entries of `tables/grammar.jsonl`."""
    return read_jsonl("tables/grammar.jsonl", Correction)


def grammar(rng: random.Random) -> list[StarterRow]:
    """Return sentences with one mistake to correct."""
    wordings = read_yaml("templates/grammar.yaml", GrammarWordings)
    return [_correction_row(rng, wordings, entry) for entry in corrections()]


def rewriting(rng: random.Random) -> list[StarterRow]:
    """Return sentences to make formal, shorter or polite, or to put into the passive or the past."""
    wordings = read_yaml("templates/rewriting.yaml", dict[str, Wordings])
    return [
        StarterRow(
            prompt=rng.choice(wordings[entry.style].prompts).format(sentence=entry.sentence),
            completion=rng.choice(wordings[entry.style].completions).format(rewritten=entry.rewritten),
            capability="rewriting",
            answer_type="open",
        )
        for entry in read_jsonl("tables/rewriting.jsonl", Rewriting)
    ]


def classification(rng: random.Random) -> list[StarterRow]:
    """Return texts to label by sentiment, topic, trustworthiness or purpose."""
    wordings = read_yaml("templates/classification.yaml", dict[str, ClassificationWordings])
    texts = read_jsonl("tables/classification.jsonl", LabeledText)
    return [_label_row(rng, wordings[entry.task], entry) for entry in texts]


def _correction_row(rng: random.Random, wordings: GrammarWordings, entry: Correction) -> StarterRow:
    wrong_words, right_words = _MISTAKE.findall(entry.sentence)[0]
    wrong, right = (_MISTAKE.sub(group, entry.sentence) for group in (r"\1", r"\2"))
    introduction = rng.choice(wordings.introductions).format(right=right)
    reason = rng.choice(wordings.reasons[entry.mistake]).format(wrong_words=wrong_words, right_words=right_words)
    return StarterRow(
        prompt=rng.choice(wordings.prompts).format(wrong=wrong),
        completion=f"{introduction} {reason} {wordings.rules[entry.mistake]}",
        capability="grammar",
        answer_type="phrase",
        answer=right,
    )


def _label_row(rng: random.Random, wordings: ClassificationWordings, entry: LabeledText) -> StarterRow:
    label = wordings.label_phrases.get(entry.label, entry.label)
    decision = rng.choice(wordings.completions).format(label=label, reason=entry.reason)
    return StarterRow(
        prompt=rng.choice(wordings.prompts).format(text=entry.text),
        completion=f"{decision} {wordings.closings[entry.label]}",
        capability="classification",
        answer_type="phrase",
        answer=entry.label,
    )
