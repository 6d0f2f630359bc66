"""Faults of a rewritten text, whatever its answer should be: echoes, banned phrases, refusals, loops."""

import ast
import re
from collections import Counter
from collections.abc import Sequence

from trl_prune.data.rewriting.arithmetic import FENCED


# The phrases of self-distillation fine-tuning (arXiv 2402.13669) that betray the rewriting request, anywhere. Its
# rule also rejects "I appreciate your response", for which the reference is kept.
BANNED_PHRASES = ("reference answer", "your response", "my response", "your own response", "now it's your turn")


BANNED_STARTS = ("your turn",)


# Other wording about the request, which a prompt may use itself.
ABOUT_REQUEST = re.compile(
    r"\b(?:provided|given|reference) (?:answer|solution|response|reference)\b"
    r"|\b(?:rewritten|rephrased|reworded) (?:answer|solution|response)\b|\b(?:answer|solution|response) provided\b"
)


# Nothing, or only punctuation and marks of Markdown; brackets, symbols and emoji may be an answer.
EMPTY = re.compile(r"[\s.,;:!?*_#`\u200b-\u200d\u2060\ufeff]*")


# Headings and openings of the rewriting requests.
ECHOES = (
    "### instruction:",
    "### reference answer:",
    "### response:",
    "below are an instruction",
    "below is an instruction that describes a task",
    "below are a math question and its reference answer",
    "you are an expert in math. below",
)


# A text that starts with so many words of a line of the prompt, or with all of a prompt of some words, repeats it.
ECHO_WORDS, ECHO_MIN_WORDS = 20, 8


APOLOGIES = (
    "i'm sorry, but",
    "i am sorry, but",
    "sorry, but",
    "i apologize, but",
    "my apologies, but",
    "unfortunately,",
    "i'm sorry,",
    "i am sorry,",
    "sorry,",
)


# Refusals, by themselves or after an apology.
REFUSALS = (
    "as an ai language model", "as an ai model", "as an ai assistant", "as an ai,", "as an artificial intelligence",
    "as a language model", "as a large language model", "i do not have access to", "i don't have access to",
    "i cannot help with", "i can't help with", "i cannot help you", "i can't help you",
    "i'm unable to", "i am unable to", "i'm not able to", "i am not able to", "i cannot assist", "i can't assist",
    "i cannot provide", "i can't provide", "i cannot fulfill", "i can't fulfill", "i cannot answer", "i can't answer",
    "i cannot comply", "i can't comply", "i cannot do that", "i can't do that", "i cannot create", "i can't create",
    "i cannot generate", "i can't generate", "i cannot write", "i can't write", "i won't be able to", "i must decline",
)  # fmt: skip


PRAISE = re.compile(r"i (?:cannot|can't) \w+ enough\b")


# After an apology these refuse too.
APOLOGETIC_REFUSALS = (
    "i cannot", "i can't", "i can not", "i am un", "i'm un", "i am not able", "i'm not able", "i do not have",
    "i don't have", "i won't", "i must", "i will not", "as an ai", "it is not appropriate", "it's not appropriate",
)  # fmt: skip


# A text loops if runs of NGRAM_WORDS words that occur NGRAM_COUNT times make up a share of it. Without the share,
# 1.7 % of GSM8K's answers loop: "The number of words that Carl can type in ..." in each of three steps.
NGRAM_WORDS, NGRAM_COUNT, NGRAM_SHARE = 6, 3, 0.5


# It also loops if a line follows itself so often, or a list has so many items and all or so many of them are one.
SAME_LINES, SAME_ITEMS = 4, 4


# Or if characters repeat at once: short units at least 8 times over 24 characters, sentences 4 times.
CHARACTER_LOOP = re.compile(r"(?=(\S{1,10}?)\1{7})(?:\1){8,}")
SENTENCE_LOOP = re.compile(r"(.{10,80}?)\1{3,}", re.DOTALL)
LOOP_CHARACTERS = 24


# A line that comes back between others, as a refrain does, counts once, unless it comes more often or fills more.
REFRAIN_COUNT, REFRAIN_SHARE = 6, 0.5


TABLE_LINE = re.compile(r"\|.*\||\t.*\t")


CODE_LINE = re.compile(r"[;{}]\s*$|^(?:\t| {4})")


LIST_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+(.+?)\s*$")


QUOTES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "'"})


def text_fault(text: str, finished: bool, prompt: str = "", banned: Sequence[str] = BANNED_PHRASES) -> str | None:
    """Return the first fault of a rewritten text, or None.

    Args:
        text: the rewritten answer, without thoughts.
        finished: whether generation ended with an end-of-sequence token.
        prompt: the row's own prompt, without the reference answer.
        banned: phrases that no answer contains, whatever their case.

    Returns:
        `empty`, `echo` (of the rewriting request or of the prompt), `banned_phrase` (also other wording about the
        reference, unless the prompt uses it), `refusal` (at the start), `repetition` or `truncated`.
    """
    plain = text.translate(QUOTES).strip()
    lower = plain.lower()
    checks = {
        "empty": lambda: EMPTY.fullmatch(lower),
        "echo": lambda: any(echo in lower for echo in ECHOES) or repeats_prompt(lower, prompt),
        "banned_phrase": lambda: any(phrase.lower() in lower for phrase in banned) or mentions_request(lower, prompt),
        "refusal": lambda: is_refusal(lower),
        "repetition": lambda: is_repetitive(plain),
        "truncated": lambda: not finished,
    }
    return next((fault for fault, applies in checks.items() if applies()), None)


def mentions_request(text: str, prompt: str) -> bool:
    """Return whether a text in lower case speaks of the answer it was given, in words that the prompt does not use."""
    mentions = {mention.group() for mention in ABOUT_REQUEST.finditer(text)}
    return text.startswith(BANNED_STARTS) or any(mention not in prompt.lower() for mention in mentions)


def repeats_prompt(text: str, prompt: str) -> bool:
    """Return whether a text starts with a long part of a prompt, from the start of one of its lines.

    A line without an end, such as "Milk is measured in", may be completed.
    """
    line = prompt.strip()
    if "\n" not in line and not line.endswith((".", "?", "!", ":")):
        return False
    words = _words(text)
    whole = _words(prompt)
    if ECHO_MIN_WORDS <= len(whole) < ECHO_WORDS:
        return words[: len(whole)] == whole and len(words) > len(whole)
    lines = (_words(line)[:ECHO_WORDS] for line in prompt.splitlines())
    return any(len(start) == ECHO_WORDS and words[:ECHO_WORDS] == start for start in lines)


def is_refusal(text: str) -> bool:
    """Return whether a text in lower case opens with a refusal; one that mentions an AI later does not."""
    opening = text.lstrip("*_#>\"' \n")
    apology = next((apology for apology in APOLOGIES if opening.startswith(apology)), None)
    if apology is None:
        return opening.startswith(REFUSALS) and not PRAISE.match(opening)
    return opening.removeprefix(apology).lstrip().startswith(REFUSALS + APOLOGETIC_REFUSALS)


def is_repetitive(text: str) -> bool:
    """Return whether a text loops: over words, characters, lines or items of a list; tables and code may repeat."""
    lines = [line for line in FENCED.sub("", text).splitlines() if line.strip() and not TABLE_LINE.search(line)]
    if _is_code(text):
        return False
    prose = [line for line in lines if not CODE_LINE.search(line)]
    return repeats_words(prose) or repeats_lines(lines) or repeats_items(lines) or repeats_characters("\n".join(prose))


def repeats_words(lines: Sequence[str]) -> bool:
    """Return whether repeated runs of words make up much of a text, where a refrain counts once."""
    words = [word.lower() for line in _without_refrains(lines) for word in line.split()]
    ngrams = [tuple(words[start : start + NGRAM_WORDS]) for start in range(len(words) - NGRAM_WORDS + 1)]
    counts = Counter(ngrams)
    starts = [start for start, ngram in enumerate(ngrams) if counts[ngram] >= NGRAM_COUNT]
    covered = {position for start in starts for position in range(start, start + NGRAM_WORDS)}
    return bool(covered) and len(covered) >= NGRAM_SHARE * len(words)


def repeats_lines(lines: Sequence[str]) -> bool:
    """Return whether a line with words follows itself repeatedly."""
    run, previous = 0, None
    for line in (line.strip() for line in lines if re.search(r"\w", line)):
        run, previous = (run + 1 if line == previous else 1), line
        if run >= SAME_LINES:
            return True
    return False


def repeats_items(lines: Sequence[str]) -> bool:
    """Return whether a list repeats an item: all are one, or one of several words comes too often."""
    items = [match[1].lower() for line in lines if (match := LIST_ITEM.match(line))]
    if len(items) < SAME_ITEMS:
        return False
    item, count = Counter(items).most_common(1)[0]
    return count == len(items) or (count >= SAME_ITEMS and len(item.split()) > 2)


def repeats_characters(text: str) -> bool:
    """Return whether letters repeat at once, as in "hahaha" without end; rules of dashes and zeros of numbers may."""
    return any(
        len(loop.group()) >= LOOP_CHARACTERS and re.search(r"[^\W\d_]", loop[1])
        for pattern in (CHARACTER_LOOP, SENTENCE_LOOP)
        for loop in pattern.finditer(text)
    )


def _without_refrains(lines: Sequence[str]) -> list[str]:
    counts = Counter(line.strip().lower() for line in lines)
    kept: list[str] = []
    seen: set[str] = set()
    repeated = sum(count for count in counts.values() if count > 1) - sum(count > 1 for count in counts.values())
    may_repeat = repeated <= REFRAIN_SHARE * len(lines)
    for line in lines:
        key = line.strip().lower()
        is_refrain = may_repeat and key in seen and counts[key] < REFRAIN_COUNT
        if not is_refrain:
            kept.append(line)
        seen.add(key)
    return kept


def _is_code(text: str) -> bool:
    """Return whether a text without fences is Python."""
    if not re.search(r"^(?:def|class|import|from|for|while|if|print)\b", text, re.MULTILINE):
        return False
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
