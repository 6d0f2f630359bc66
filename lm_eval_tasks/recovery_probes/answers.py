"""Read the answer of a generative probe out of what a model says: a word or number, or a sentence that gives it.

A base model goes on with the answer itself, a chat model may say "The sum of 2 and 3 is 5." or "**armies**". What only
says the question again is no answer.
"""

from __future__ import annotations

import re
from typing import Any


# As lm-eval's filters have it: no answer was found.
INVALID = "[invalid]"
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
MARKUP = re.compile(r"[*_`\"\u201c\u201d\u2018\u2019]|(?<!\w)'|'(?!\w)")
NUMBER = r"-?\d+(?:,\d{3})*"
# A number at the start that is no term of a longer sum, and those of a sentence that are none.
FIRST_NUMBER = re.compile(rf"({NUMBER})(?![\d.]*\s*[-+*/=])")
FREE_NUMBER = re.compile(rf"(?<![\w.,])(?<![-+*/]\s)(?<![-+*/])({NUMBER})(?!\w|\s*[-+*/]\s*\d)")
# The words of an answer that is not a sentence, with the article it may begin with.
ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)
SHORT = 3
# What stands before the answer in a sentence; the last one counts.
GIVES = re.compile(r"(?:\b(?:is|are|was|were)\b|:)\s*", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]+")


def read_answers(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[str]]:
    """Return, as a filter of lm-eval, the answer in each of a model's texts; `[invalid]` where it has none."""
    return [[read_answer(text, doc) for text in texts] for texts, doc in zip(resps, docs, strict=True)]


def read_answer(text: str, doc: dict[str, Any]) -> str:
    """Return the number or the word that a text answers with; which of the two the right answer is decides.

    It is read in the first sentence that does not repeat the question. A number is the one that the sentence begins
    with, the one after its last equals sign, or its last one that is no term of a sum. A word is the first of an
    answer of up to three words, or the first after the sentence's last "is", "are", "was", "were" or colon.
    """
    sentence = _first_sentence(MARKUP.sub("", text), doc["prompt"])
    read = _number if doc["answer"].lstrip("-").isdigit() else _word
    return (sentence and read(sentence)) or INVALID


def _first_sentence(text: str, prompt: str) -> str | None:
    for said in filter(None, map(str.strip, SENTENCE_END.split(prompt))):
        text = re.sub(rf"(?<!\w){re.escape(said)}(?!\w)", "", text, flags=re.IGNORECASE)
    sentences = (sentence.strip(" \t,;.") for sentence in SENTENCE_END.split(text))
    return next((sentence for sentence in sentences if WORD.search(sentence) or re.search(r"\d", sentence)), None)


def _number(sentence: str) -> str | None:
    if first := FIRST_NUMBER.match(sentence):
        return first[1].replace(",", "")
    if "=" in sentence:
        last = re.match(rf"\s*\$?({NUMBER})", sentence.rsplit("=", 1)[1])
        return last and last[1].replace(",", "")
    numbers = FREE_NUMBER.findall(sentence)
    return numbers[-1].replace(",", "") if numbers else None


def _word(sentence: str) -> str | None:
    *_, answer = GIVES.split(sentence)
    if answer == sentence and len(WORD.findall(ARTICLE.sub("", sentence))) > SHORT:
        return None
    word = WORD.match(ARTICLE.sub("", answer, count=1) if ARTICLE.match(answer) else answer)
    return word and word[0]
