"""Generators of starter rows that correct, rewrite or classify a sentence."""

import random
import re
from typing import NamedTuple

from trl_prune.data.starter import language as language
from trl_prune.data.starter.draft import Draft


# The marks {first|second} in the tables hold two versions of the same words.
_MARK = re.compile(r"\{([^|{}]+)\|([^|{}]+)\}")

_CORRECTION_REQUESTS = (
    'Correct the grammar of this sentence: "{wrong}"',
    "Please fix the mistake in the following sentence.\n\n{wrong}",
    'Is there an error in "{wrong}"? Please write the sentence correctly.',
    "Rewrite this sentence in correct English: {wrong}",
    "What is the right way to write this sentence?\n{wrong}",
    "My English is not perfect. Could you correct this for me? {wrong}",
    'Proofread this sentence and give me the corrected version: "{wrong}"',
)

_CORRECTION_INTROS = (
    'The corrected sentence is: "{right}"',
    'The sentence should read: "{right}"',
    'Correct English would be: "{right}"',
    'Here is the correct version: "{right}"',
    'It should be written like this: "{right}"',
)

_CORRECTION_REASONS: dict[str, tuple[str, ...]] = {
    "agreement": (
        'The verb has to agree with its subject, so "{bad}" becomes "{good}".',
        'With this subject, the right verb form is "{good}", not "{bad}".',
    ),
    "tense": (
        'The verb form "{bad}" does not fit here; the right form is "{good}".',
        'English uses "{good}" in this sentence instead of "{bad}".',
    ),
    "article": (
        'The noun phrase needs "{good}" here rather than "{bad}".',
        'Instead of "{bad}", English uses "{good}" in this place.',
    ),
    "comparison": (
        'The right way to form this comparison is "{good}", not "{bad}".',
        'When comparing, English uses "{good}" here instead of "{bad}".',
    ),
    "preposition": (
        'The preposition that fits in this sentence is "{good}", not "{bad}".',
        'English uses "{good}" in this expression, while "{bad}" does not fit.',
    ),
    "pronoun form": (
        'In this position, English needs the form "{good}" instead of "{bad}".',
        'The form "{bad}" does not fit this place in the sentence, so it becomes "{good}".',
    ),
    "adverb": (
        'An adverb is needed to describe the action, so "{bad}" becomes "{good}".',
        'The word describes how something is done, so the adverb "{good}" is right, not "{bad}".',
    ),
    "confused word": (
        'The words "{bad}" and "{good}" are easily mixed up, and only "{good}" makes sense here.',
        'The right word here is "{good}"; "{bad}" is a different word that people often confuse with it.',
    ),
    "double negative": (
        'The sentence is already negative, so "{bad}" is replaced with "{good}".',
        'Standard English uses only one negative word, which is why "{bad}" becomes "{good}".',
    ),
    "verb pattern": (
        'In this pattern the right form is "{good}", not "{bad}".',
        'This construction is followed by "{good}", so "{bad}" has to change.',
    ),
}


# What all mistakes of one kind have in common.
_CORRECTION_RULES: dict[str, str] = {
    "agreement": "Singular subjects take singular verb forms, and plural subjects take plural ones.",
    "tense": "The verb form has to match the time of the sentence and any helping verb before it.",
    "article": "Say the words aloud: what matters is the sound that follows and whether the thing is a definite one.",
    "comparison": "Some words take an ending, others take a separate word, and a few are irregular.",
    "preposition": "Such small words are fixed by usage, so it helps to learn them together with their partner.",
    "pronoun form": "Subjects, objects and possessives each have a form of their own.",
    "adverb": "Adjectives describe things, while adverbs describe actions.",
    "confused word": "Reading the sentence slowly and thinking of the meaning helps to choose the right spelling.",
    "double negative": "Two negative words in one clause would cancel each other.",
    "verb pattern": "Each verb decides which form may follow it, so it is best to learn them as a pair.",
}


class _Rewriting(NamedTuple):
    requests: tuple[str, ...]
    replies: tuple[str, ...]
    sentences: tuple[tuple[str, str], ...]


def _first(marked: str) -> str:
    return _MARK.sub(r"\1", marked)


def _second(marked: str) -> str:
    return _MARK.sub(r"\2", marked)


_REWRITINGS = (
    _Rewriting(
        (
            "Make this sentence more formal: {text}",
            'How could I say "{text}" in a formal letter?',
            "Rewrite the following for a business email.\n\n{text}",
            "This sounds too casual. Please give me a professional version: {text}",
        ),
        (
            'A more formal version would be: "{text}" It keeps the meaning but suits a professional setting.',
            'You could write: "{text}" This avoids casual expressions and sounds calm and respectful.',
            'In formal English, this could read: "{text}" The words are chosen with more care.',
        ),
        language.FORMAL,
    ),
    _Rewriting(
        (
            "Make this sentence shorter: {text}",
            "Please say the same thing in fewer words.\n\n{text}",
            'This sentence is too long: "{text}" Can you tighten it?',
            "Shorten the following sentence without losing its main point. {text}",
        ),
        (
            'A shorter version is: "{text}" It leaves out the words that add nothing to the meaning.',
            'You can say it more briefly: "{text}" Readers get the point faster when filler words are removed.',
            'Here is a concise version: "{text}" The main point stays the same, but it is easier to read.',
        ),
        language.SHORTER,
    ),
    _Rewriting(
        (
            "Make this more polite: {text}",
            'How can I say "{text}" in a friendlier way?',
            "Please turn this into a polite sentence.\n\n{text}",
            'I do not want to sound rude. What could I say instead of "{text}"?',
        ),
        (
            'A more polite way to say this is: "{text}" It sounds friendly and respectful.',
            'You could say: "{text}" This is softer than the original and shows respect for the listener.',
            'Here is a politer version: "{text}" Courteous wording makes people more willing to help or to listen.',
        ),
        language.POLITE,
    ),
    _Rewriting(
        (
            "Change this sentence into the passive voice: {text}",
            "Rewrite the sentence in the passive.\n\n{text}",
            'What does "{text}" look like in the passive voice?',
            "Please put the following active sentence into the passive voice. {text}",
        ),
        (
            'In the passive voice, the sentence is: "{text}" The object of the action has become the subject.',
            'The passive version reads: "{text}" The one who acts now follows after the word "by".',
            'Here is the sentence in the passive voice: "{text}" It uses a form of "be" and a past participle.',
        ),
        language.PASSIVE,
    ),
    _Rewriting(
        (
            "Put this sentence into the past tense: {text}",
            "Rewrite the sentence so that it talks about the past.\n\n{text}",
            'How would you write "{text}" in the simple past?',
            "Change the following sentence from the present to the past tense. {text}",
        ),
        (
            'In the past tense, the sentence is: "{text}" Only the verb forms have changed.',
            'The past tense version reads: "{text}" It now describes something that is already over.',
            'Here it is in the simple past: "{text}" Everything apart from the verbs stays the same.',
        ),
        tuple((_first(marked), _second(marked)) for marked in language.PAST),
    ),
)


class _Labeling(NamedTuple):
    requests: tuple[str, ...]
    replies: tuple[str, ...]
    texts: tuple[tuple[str, str, str], ...]


_LABELINGS = (
    _Labeling(
        (
            'Is the sentiment of this text positive, negative or neutral? "{text}"',
            "Decide whether the following review is positive, negative or neutral.\n\n{text}",
            "What is the tone of this comment: positive, negative or neutral? {text}",
            "Classify the sentiment (positive, negative, neutral): {text}",
        ),
        (
            "The sentiment is {label}, because {reason}.",
            "I would call this text {label}, since {reason}.",
            "This is a {label} statement: {reason}.",
        ),
        language.SENTIMENT,
    ),
    _Labeling(
        (
            "Which topic fits this text best: sports, cooking, technology, travel, finance or health?\n\n{text}",
            'Assign one of the topics sports, cooking, technology, travel, finance or health: "{text}"',
            "A website has the sections sports, cooking, technology, travel, finance and health. "
            'Where does this belong? "{text}"',
        ),
        (
            "The topic is {label}, because {reason}.",
            "This text belongs to {label}, since {reason}.",
            "I would file it under {label}: {reason}.",
        ),
        language.TOPIC,
    ),
    _Labeling(
        (
            'Is this message spam or legitimate? "{text}"',
            "Please tell me whether the following message looks like spam or is legitimate.\n\n{text}",
            "I received this message. Should I treat it as spam or as legitimate? {text}",
        ),
        (
            "This looks like {label}, because {reason}.",
            "I would treat it as {label}, since {reason}.",
            "In my view, this is {label}: {reason}.",
        ),
        language.SPAM,
    ),
    _Labeling(
        (
            'Is this customer message a complaint, a request, a question or praise? "{text}"',
            "Sort this message into one of these groups: complaint, request, question, praise.\n\n{text}",
            "What does the writer want to express: complaint, request, question or praise? {text}",
        ),
        (
            "The message belongs to the group {label}, because {reason}.",
            "I would label it as {label}, since {reason}.",
            "The best label is {label}: {reason}.",
        ),
        language.INTENT,
    ),
)

# "Looks like legitimate" is not English, so the word gets a noun where it needs one.
_LABEL_WORDING = {"legitimate": "a legitimate message"}


# When each label is the right one.
_LABEL_RULES: dict[str, str] = {
    "positive": "Expressions of joy, thanks or satisfaction point to this label.",
    "negative": "Expressions of anger, regret or disappointment point to this label.",
    "neutral": "Without praise or criticism there is no feeling to measure.",
    "sports": "Matches, races and athletes are typical of this section.",
    "cooking": "Ingredients and kitchen work are typical of this section.",
    "technology": "Devices, software and machines are typical of this section.",
    "travel": "Trips, routes and places to visit are typical of this section.",
    "finance": "Money, markets and loans are typical of this section.",
    "health": "Medicine and well-being are typical of this section.",
    "spam": "It is best to delete it without clicking or replying.",
    "legitimate": "Nothing in it tries to trick or to rush the reader.",
    "complaint": "A good reply would apologize and offer a solution.",
    "request": "A good reply would carry out what was asked and confirm it.",
    "question": "A good reply would give the missing information clearly.",
    "praise": "A good reply would thank the writer for the kind words.",
}


def grammar(rng: random.Random) -> list[Draft]:
    """Return sentences with one mistake to correct."""
    return [_correction(rng, mistake, marked) for mistake, marked in language.CORRECTIONS]


def rewriting(rng: random.Random) -> list[Draft]:
    """Return sentences to make formal, shorter or polite, or to put into the passive or the past."""
    return [
        Draft(rng.choice(kind.requests).format(text=text), rng.choice(kind.replies).format(text=rewritten), "open")
        for kind in _REWRITINGS
        for text, rewritten in kind.sentences
    ]


def classification(rng: random.Random) -> list[Draft]:
    """Return texts to label by sentiment, topic, trustworthiness or purpose."""
    return [_label(rng, kind, row) for kind in _LABELINGS for row in kind.texts]


def _correction(rng: random.Random, mistake: str, marked: str) -> Draft:
    bad, good = _MARK.findall(marked)[0]
    right = _second(marked)
    intro = rng.choice(_CORRECTION_INTROS).format(right=right)
    reason = rng.choice(_CORRECTION_REASONS[mistake]).format(bad=bad, good=good)
    prompt = rng.choice(_CORRECTION_REQUESTS).format(wrong=_first(marked))
    return Draft(prompt, f"{intro} {reason} {_CORRECTION_RULES[mistake]}", "phrase", right)


def _label(rng: random.Random, kind: _Labeling, row: tuple[str, str, str]) -> Draft:
    text, label, reason = row
    wording = _LABEL_WORDING.get(label, label)
    reply = rng.choice(kind.replies).format(label=wording, reason=reason)
    return Draft(rng.choice(kind.requests).format(text=text), f"{reply} {_LABEL_RULES[label]}", "phrase", label)
