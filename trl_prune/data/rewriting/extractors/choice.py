"""The letter of a multiple-choice answer."""

import re


# "A" before another word is an article, "I" a pronoun; a letter that another one follows is one of several.
ANOTHER = (
    r"[\s*_)\]}]*(?:(?:or|and)\b|[/&]|,(?:\s*(?:or|and)\b)?)(?:[\s*_(\[]|\\boxed\{)*"
    r"(?:[A-HJ](?![\w'])|I(?![\w'])(?!\s+[a-z]))"
)
LETTER = (
    r"(?:[B-HJ](?![\w'])|[AI](?![\w'])(?!\s+(?!(?:because|since|as|for|and|is|due|or)\b)[a-z]))"
    rf"(?!{ANOTHER})"
)
NOT_DENIED = r"(?<!not )(?<!n't )(?<!never )(?<!cannot )(?<!not to )(?<!cannot be )(?<!n't be )(?<!rather than )"


# Marks around a letter, also LaTeX's.
OPENING = r"(?:[\s*_(\[\"'`$]|\\boxed\{|\\text(?:bf)?\{|\\mathrm\{)*"


FILLER = r"(?:\s*(?:[:=]|(?:clearly|therefore|thus|likely|most likely|option|choice|letter|answer|the)\b))*"


# Statements of a final answer; the last of a text counts.
STATEMENTS = (
    rf"(?<!wrong )(?<!incorrect )(?:answer|option|choice|letter)(?:\s+(?:is|would be|should be|must be)\b|\s*[:=])"
    rf"{FILLER}{OPENING}(?P<stated>{LETTER})",
    rf"{NOT_DENIED}(?:choose|pick|select|go with|going with)\s+(?:(?:option|choice|answer|letter)\s+)?"
    rf"{OPENING}(?P<chosen>{LETTER})",
    r"(?<![\w'])(?<![A-J] and )(?<![A-J] or )(?P<subject>[A-J])[\s*_)\].:]*\s+is\s+(?:therefore\s+|clearly\s+)?"
    r"(?:the\s+)?(?:most\s+)?(?:correct|right|best)\b",
    rf"(?<!\bor )(?<!\band )(?<!, )\\boxed\{{\s*(?:\\text(?:bf)?\{{)?\s*\(?(?P<boxed>[A-J])\b(?!{ANOTHER})",
)


STATEMENT = re.compile("|".join(f"(?:{statement})" for statement in STATEMENTS), re.MULTILINE)


# A letter alone in its line, or one that starts a line.
ALONE = re.compile(r"^[\s*_(\[\"'`]*([A-J])[\s*_)\]\"'`.:]*$", re.MULTILINE)
LEADING = re.compile(r"^[\s*_\[\"'`]*([A-J])(?:[*_]*[).:]|\s+[-\N{EN DASH}\N{EM DASH}])(?=[\s*_]|$)", re.MULTILINE)
# Letters in brackets or bold.
MARKED = re.compile(
    rf"{NOT_DENIED}(?:\(([A-J])\)|\*\*\s*\(?([A-J])[).:]?(?:\s[^*]*)?\*\*)"
    r"(?!\s+(?:is|are)\s+(?:wrong|incorrect|not|false))"
)


def choice_letter(text: str) -> str | None:
    """Return the letter of a multiple-choice answer, A to J, or None if the text gives none or several.

    The last statement counts: "the answer is B", "B is correct", a last line that is only "B". Without a statement it
    is the letter that the text starts with, or the only one in brackets or bold.
    """
    stated = [_letter(match) for match in STATEMENT.finditer(_case_of_keywords(text))]
    last_line = ALONE.fullmatch(text.strip().rpartition("\n")[2])
    if last_line:
        return last_line[1]
    if stated:
        return stated[-1]
    leading = {_letter(match) for match in LEADING.finditer(text)}
    if LEADING.match(text.lstrip()) and len(leading) == 1:
        return leading.pop()
    if re.search(rf"(?<![\w'])[A-J]{ANOTHER}", text):
        return None
    marked = leading | {_letter(match) for match in MARKED.finditer(_case_of_keywords(text))}
    return marked.pop() if len(marked) == 1 else None


def same_choice(rewrite: str, reference: str) -> bool:
    """Return whether both texts choose the same letter."""
    letter = choice_letter(reference)
    return letter is not None and choice_letter(rewrite) == letter


def _letter(match: re.Match) -> str:
    return next(filter(None, match.groups()))


def _case_of_keywords(text: str) -> str:
    """Return a text with its words in lower case, and its single letters as they are."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.sub(r"[^\W\d_]{2,}", lambda word: word.group().lower(), text)
