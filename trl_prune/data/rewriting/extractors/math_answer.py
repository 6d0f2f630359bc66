r"""The final answer to a mathematical question: `\boxed{}`, `#### x`, "the answer is x", else the last number."""

import re
from fractions import Fraction

from trl_prune.data.rewriting.extractors.math_equality import same_expression
from trl_prune.data.rewriting.extractors.number import DENIAL, SCALE, Number, final_number, numbers_of


BOX = re.compile(r"\\f?boxed\s*\{")


# GSM8K's final answer: a number, wherever it stands, or anything in the last line; other such lines are headings.
HASHES = re.compile(r"(?:####\s*([-+$€£]?\s?[\d.,/]+%?)|^\s*####\s*(.+?))\s*$", re.MULTILINE)


STATED = re.compile(r"\banswer\b(?:\s+is|\s*:|\s+should be|\s+equals|\s*=)\s*:?\s*", re.IGNORECASE)


SENTENCE_END = re.compile(r"\.(?=\s|$|\*)|\n")


INLINE_MATH = re.compile(r"\$([^$]+)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")


# What may stand around a number: the name of a variable, currency, units and the like.
DECORATION = re.compile(
    r"""\\(?:text|mathrm|textbf|mathbf)\s*\{[^{}]*\} | \^\s*\{?\\circ\}? | \\[,;:!\ ] | [*_`"'°~] | \\?\$
    | ^\s*[a-zA-Z]\s*= | \b[a-zA-Z]{2,}\b(?:/[a-zA-Z]+)? | [.,;]+\s*$""",
    re.VERBOSE,
)


# Words that change the value of a number beside them, or leave it open.
VALUE_WORDS = re.compile(
    rf"(?:sin|cos|tan|log|ln|exp|sqrt|mod)(?![a-zA-Z])|{SCALE}|{DENIAL}"
    r"|\b(?:either|between|at least|at most|maybe|squared|cubed|factorial|(?:third|quarter)s? of)\b",
    re.IGNORECASE,
)


# What follows a stated answer: its reason, or the calculation in brackets.
REASON = re.compile(r",?\s+(?:because|since|as|so|which|where)\b|(?<=\w)\s\((?!or\b|not\b)")


ARITHMETIC = re.compile(r"[\d.\s()+*/^-]+")


# Boxes of one answer's parts or alternatives.
BETWEEN_BOXES = re.compile(r"[\s$,]*(?:(?:or|and)\b)?[\s$,]*")


# A word of prose, not a command or a function.
WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")


COMMAND = re.compile(r"\\[a-zA-Z]+|[\^_{}=]|[-+*/(]\s*[a-zA-Z]\b")


MAX_BARE_CHARACTERS, MAX_STATED_CHARACTERS, MAX_STATEMENTS = 100, 300, 20


def math_answer(text: str) -> Fraction | str | None:
    r"""Return a text's final answer, a number if it is one, else LaTeX without whitespace; None if there is none.

    The answer is the last `\boxed{}`, GSM8K's `#### x`, what "the answer is" last states, the text if it is nothing
    but an expression, or the last number.
    """
    answer = answer_text(text)
    if answer is None:
        return None
    number = as_number(answer)
    return number.value if number else re.sub(r"\s", "", answer)


def same_math(rewrite: str, reference: str) -> bool:
    """Return whether both texts have the same final answer, as numbers or by math-verify, or as words."""
    found, expected = answer_text(rewrite), answer_text(reference)
    return found is not None and same_value(found, reference if expected is None else expected)


def same_value(answer: str, expected: str) -> bool:
    """Return whether two answers without text around them are equal: as written, as numbers, or by math-verify."""
    answer, expected = _unwrapped(answer), _unwrapped(expected)
    if _canonical(answer) == _canonical(expected):
        return bool(answer)
    numbers = as_number(answer), as_number(expected)
    if numbers[0] and numbers[1]:
        units = _units(answer), _units(expected)
        return numbers[0].equals(numbers[1]) and (units[0] == units[1] or not all(units))
    has_words = WORD.search(answer) or WORD.search(expected)  # which would be products of letters
    return not has_words and same_expression(answer, expected)


def answer_text(text: str) -> str | None:
    """Return the part of a text that is its final answer, as it is written, or None."""
    finders = (boxed_content, hashes_answer, stated_answer, bare_expression)
    answer = next((found for find in finders if (found := find(text)) is not None), None)
    if answer is not None:
        return _unwrapped(answer) or None
    number = final_number(text)
    return str(number) if number else None


def boxed_content(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` with balanced braces, None if none, "" if it is one of several."""
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    end = _closing_brace(text, boxes[-1].end())
    before = _closing_brace(text, boxes[-2].end()) if len(boxes) > 1 else None
    if before is not None and BETWEEN_BOXES.fullmatch(text, before + 1, boxes[-1].start()):
        return ""
    return None if end is None else text[boxes[-1].end() : end]


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return None


def hashes_answer(text: str) -> str | None:
    """Return what follows the last `####` before a number, or before anything in the last line; None if none."""
    last = len(text.rstrip())
    answers = [match[1] or match[2] for match in HASHES.finditer(text) if match[1] or match.end() >= last]
    return answers[-1] if answers else None


def stated_answer(text: str) -> str | None:
    """Return what the last "the answer is" of a text states, up to the end of the sentence or to its reason.

    None if it states no mathematics, "" if it states several numbers or denies one.
    """
    for statement in reversed(list(STATED.finditer(text))[-MAX_STATEMENTS:]):
        tail = text[statement.end() : statement.end() + MAX_STATED_CHARACTERS]
        sentence = REASON.split(SENTENCE_END.split(tail, maxsplit=1)[0], maxsplit=1)[0].strip()
        formulas = INLINE_MATH.findall(sentence)
        if formulas:
            is_clear = len(formulas) == 1 and not VALUE_WORDS.search(INLINE_MATH.sub(" ", sentence))
            return "".join(formulas[0]).strip() if is_clear else ""
        found = _stated_value(sentence)
        if found or numbers_of(sentence):
            return found or ""
    return None


def _stated_value(sentence: str) -> str | None:
    if VALUE_WORDS.search(sentence) is None and not re.search(r"\band\b|,\s", sentence):
        result = sentence.rpartition("=")[2].strip()
        if as_number(result) or (ARITHMETIC.fullmatch(result) and numbers_of(result)):
            return result
        numbers = numbers_of(result)
        if len(numbers) == 1 and not COMMAND.search(result):
            return str(numbers[0])
    return bare_expression(sentence)


def bare_expression(text: str) -> str | None:
    """Return a text if it is one expression without prose, such as an expected answer, else None."""
    stripped = _unwrapped(text)
    if len(stripped) > MAX_BARE_CHARACTERS or "\n" in stripped or re.search(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}", stripped):
        return None
    if not (COMMAND.search(stripped) or re.fullmatch(r"[a-zA-Z]|[(\[].*[)\]]", stripped)):
        return None
    return stripped if "," in stripped else stripped.rpartition("=")[2].strip() or None


def as_number(answer: str) -> Number | None:
    """Return the number that an answer is, whatever its units, or None if it is something else."""
    if VALUE_WORDS.search(answer):
        return None
    plain = re.sub(r"(\d)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1 \2/\3", answer)
    plain = re.sub(r"\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1/\2", plain).replace(r"\%", "%").replace("{,}", ",")
    plain = DECORATION.sub(" ", re.sub(r"\bpercent\b", "%", plain))
    numbers = numbers_of(plain)
    rest = re.sub(r"[-+\N{MINUS SIGN}]?\s*\.?\d[\d,./]*(?:\s\d+/\d+)?\s*%?", "", plain, count=1)
    return numbers[0] if len(numbers) == 1 and not rest.strip(" .,;") else None


def _canonical(answer: str) -> str:
    """Return an answer as it is compared in writing."""
    answer = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[,;:! ]|\s", "", answer)
    return answer.lower() if re.fullmatch(r"[a-zA-Z]{4,}", answer) else re.sub(r"\\[dt]frac", r"\\frac", answer)


def _units(answer: str) -> list[str]:
    r"""Return the contents of an answer's `\text{}`, without the plural's s."""
    units = re.findall(r"\\(?:text|mathrm)\s*\{([^{}]*)\}", answer)
    return [unit for unit in (text.strip().lower().rstrip(".").removesuffix("s") for text in units) if unit]


def _unwrapped(answer: str) -> str:
    r"""Return an answer without the marks of mathematics and bold text, and without its final full stop."""
    answer = answer.strip().strip("*").strip()
    formula = INLINE_MATH.fullmatch(answer.rstrip(".,"))
    if formula:
        answer = next(filter(None, formula.groups()))
    return answer.strip().rstrip(".").strip()
