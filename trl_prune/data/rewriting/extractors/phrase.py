"""A phrase that a text must state, such as a name or a label."""

import re


# What negates a phrase right after it.
NOT_WORDS = ("not", "never", "cannot", "isn't", "no longer", "neither", "nor", "no", "non", "without", "anti")


# Words between a negation and what it negates.
FILLERS = re.compile(
    "a|an|the|any|really|actually|necessarily|at|all|considered|classified|labell?ed|as|be|been|being|in|just|truly|likely|"
    "to|quite|very|yet|exactly|clearly|simply"
)


# What denies or questions a phrase from anywhere before it in its clause, or right after it.
DENYING = re.compile(r"\b(?:far from|hardly|barely|scarcely|unlike|rather than|instead of|as opposed to)\b")
DOUBTING = re.compile(
    r"(?<!no )(?<!without )(?<!without a )\bdoubt\w*|\b(?:unclear|unsure|uncertain|unlikely|whether|wonder|either)\b"
    r"|(?:\bnot|n't) (?:clear|sure|certain|know)\b|\bor$"
)
DENIED_AFTER = re.compile(
    r"\W*\?\W*(?:no|nope|not|never)\b|\W*(?:is|was) (?:unlikely|wrong|incorrect|false|ruled out)\b"
)
DOUBTED_AFTER = re.compile(r"\W*\?(?!\W*(?:yes|yep|indeed|correct|true|right)\b)|\W*or\b")


BOTH = re.compile(r"(?:yes|no|true|false)\s*(?:/|and|or)\s*(?:yes|no|true|false)\b")


# Openings of an expected phrase whose opposite is the rest: "not spam".
NEGATED_OPENING = re.compile(r"^(?:not|isn't|is not|non)[\s-]+(?:(?:a|an|the)\s+)?(?=\w)")


OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


QUOTES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "*": None, "`": None, "_": " "})


CONTRACTION = re.compile(r"\w+n't")


def normalized_phrase(text: str) -> str | None:
    """Return a text in lower case with single spaces, without quotes and final punctuation; None if empty."""
    normalized = " ".join(text.lower().translate(QUOTES).split()).strip("\"' ").rstrip(".!?,;: ").strip("\"' ")
    return normalized or None


def states_phrase(rewrite: str, reference: str) -> bool:
    """Return whether a text's last mention of an expected phrase states it in whole words, without denial or doubt.

    A phrase that starts with "not" is stated where the rest is denied. Of yes and no, or true and false, the text says
    the one that it starts with, else the last.
    """
    text, phrase = normalized_phrase(rewrite), normalized_phrase(reference)
    if text is None or phrase is None:
        return False
    if phrase in OPPOSITES:
        return said_yes_or_no(text, phrase) == phrase
    opening = NEGATED_OPENING.match(phrase)
    if reference.rstrip("\"' ").endswith("?"):
        text = text.replace("?", ".")  # the phrase is a question itself, so its mark is no doubt
    denied = is_denied(text, phrase[opening.end() :] if opening else phrase)
    return denied is not None and denied == (opening is not None)


def said_yes_or_no(text: str, phrase: str) -> str | None:
    """Return which of a phrase and its opposite a text says: with its first word, else last; None if neither."""
    pair = (phrase, OPPOSITES[phrase])
    if BOTH.match(text):
        return None
    first = re.match(r"\w+", text)
    if first and first.group() in pair:
        return first.group()
    said = re.findall(rf"(?<!\w)(?:{'|'.join(pair)})(?!\w)", text)
    if not said:
        return None
    denied = is_denied(text, said[-1])
    return None if denied is None else OPPOSITES[said[-1]] if denied else said[-1]


def is_denied(text: str, phrase: str) -> bool | None:
    """Return whether a normalised text's last mention of a phrase is negated; None if none, or one in doubt."""
    mentions = list(re.finditer(rf"(?<!\w){re.escape(phrase)}(?![\w+#])", text))
    if not mentions:
        return None
    clause = re.split(r"[.,;:!?()\"]", text[: mentions[-1].start()])[-1]
    rest = text[mentions[-1].end() :]
    if DENYING.search(clause) or DENIED_AFTER.match(rest):
        return True
    if DOUBTING.search(clause.strip()) or DOUBTED_AFTER.match(rest):
        return None
    return _ends_with_negation(re.findall(r"[\w']+", clause))


def _ends_with_negation(words: list[str]) -> bool:
    while words and FILLERS.fullmatch(words[-1]):
        words.pop()
    if not words:
        return False
    return words[-1] in NOT_WORDS or " ".join(words[-2:]) in NOT_WORDS or bool(CONTRACTION.fullmatch(words[-1]))
