"""Finds the first false equation of a worked answer, such as "48/2 = 23".

A right final answer can follow from wrong steps; such an answer is a bad target. Precision comes first: an equation
is reported only if it is surely arithmetic and surely false, so that rounding, conversions of units, percentages of
something unsaid, variables and estimates pass.
"""

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product

from trl_prune.data.rewriting.arithmetic_equations import LEADING_WORDS, Equation, Side, equations_of
from trl_prune.data.rewriting.arithmetic_notation import (
    UNIT_GROUPS,
    UnsureError,
    Value,
    number_value,
    shown_unit,
    singular,
    words_of,
)


# Words that make an equation something other than a plain claim, wherever they are in its clause.
DOUBT_WORDS = words_of(
    "not isn't doesn't wrong incorrect incorrectly false mistake am pm o'clock mod modulo base remainder leftover"
)


# Words that multiply the number before them.
SCALES = {
    "pair": 2,
    "couple": 2,
    "half": 2,
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "k": 1000,
    "million": 10**6,
    "billion": 10**9,
}


# What in a line tells that whole numbers may be rounded, or rounded up.
ROUGH_LINE = re.compile(
    r"\b(?:round|about|approx|near|rough|remain|left over|at least|whole|almost|around)", re.IGNORECASE
)


ROUNDED_UP_LINE = re.compile(r"\b(?:round\w* \w* ?up|up to|at least|whole)\b", re.IGNORECASE)


APPROXIMATE_WORDS = LEADING_WORDS - {"a", "total", "of", "only", "just", "exactly"}


# Ratios of units of one group, such as 60 minutes to the hour.
CONVERSIONS = {
    "time": (60, 24, 7, 12, 52, 365, 4, 30, 10, 100, 3600, 1440, 168),
    "length": (10, 100, 1000, 12, 3, 36, 5280, 1760),
    "weight": (16, 1000, 2000),
    "volume": (1000, 2, 4, 8, 16, 3),
    "money": (100, 4, 10, 20, 5, 25),
    "data": (8, 1000, 1024),
}


# What one percent may mean: 15/60 = 25 % and 15/60 * 100 = 25 % both pass.
PERCENT_READINGS = (Fraction(1, 100), Fraction(1))


# Decimals that look like a rounded third.
THIRDS = re.compile(r"\d*\.\d*(?:33|66|67)")


FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


# GSM8K's marks of a calculator's result.
CALCULATOR_MARK = re.compile(r"<<([^<>\n]*)>>")


def wrong_equation(text: str) -> str | None:
    """Return the first arithmetic step of a text, written as an equation, which is false; None if there is none.

    Read are numbers with thousands separators, currencies, percentages and units, sums, products, powers and brackets,
    in plain notation or LaTeX, chains such as `2 + 3 = 5 = 6`, and GSM8K's `<<48/2=24>>`. A decimal that is right to
    the digits shown is right; so is such a whole number after `≈`. What cannot be read for sure is not checked;
    neither is code in fences.
    """
    rounded: set[str] = set()
    for line in FENCED.sub("", text).splitlines():
        if not re.search(r"[=≈≅]|equal|\\approx|\\simeq", line):
            continue
        for step in (*CALCULATOR_MARK.findall(line), CALCULATOR_MARK.sub("", line)):
            false = next((equation for equation in equations_of(step) if _is_false(equation, rounded)), None)
            if false is not None:
                return str(false)
    return None


def _is_false(equation: Equation, rounded: set[str]) -> bool:
    """Return whether an equation is surely false; add the numbers that it rounds to those of the text."""
    try:
        if _holds(equation, rounded):
            return False
        return not any(doubt(equation) for doubt in DOUBTS)
    except UnsureError:
        return False


def _holds(equation: Equation, rounded: set[str]) -> bool:
    left, right = equation.left, equation.right
    inexact = rounded | {token.text for token in equation.clause if token.is_quantity and THIRDS.fullmatch(token.text)}
    percents = [PERCENT_READINGS if side.has_percent else PERCENT_READINGS[:1] for side in (left, right)]
    for one, other in product(*percents):
        values = left.value(one, inexact), right.value(other, inexact)
        if values[0].low <= values[1].high and values[1].low <= values[0].high:
            return True
        for exact, side, percent in ((values[0], right, other), (values[1], left, one)):
            if side.number is not None and _shows(exact, side, percent, equation):
                rounded.add(side.number.text)
                return True
    return False


def _shows(exact: Value, side: Side, percent: Fraction, equation: Equation) -> bool:
    """Return whether a side that is one number shows a value to some digits, rounded or cut off."""
    unit = shown_unit(side.number)
    if unit == 1 and not side.has_percent:
        if not _is_rough(equation, exact):
            return False
        digits = side.number.text.replace(",", "")
        unit = Fraction(10 ** (len(digits) - len(digits.rstrip("0")))) if digits.strip("0") else unit
    unit *= percent if side.has_percent else 1
    shown = side.value(percent, frozenset())
    up = unit if ROUNDED_UP_LINE.search(equation.line) else unit / 2
    below, above = (up, unit) if shown.low >= 0 else (unit, up)
    return shown.low - below <= exact.high and exact.low < shown.low + above


def _is_rough(equation: Equation, exact: Value) -> bool:
    """Return whether a value may be rounded to a whole number, or after `≈` to tens."""
    leading = {token.text for token in equation.right.tokens[: equation.right.start]}
    if equation.relation.kind == "approx" or leading & APPROXIMATE_WORDS:
        return True
    is_whole = exact.low == exact.high and exact.low.denominator == 1
    return not is_whole and ROUGH_LINE.search(equation.line) is not None


def _has_doubt_word(equation: Equation) -> bool:
    return any(token.text.lower() in DOUBT_WORDS for token in equation.clause if token.kind == "word")


def _names_a_quantity(equation: Equation) -> bool:
    """Whether the left side is a name rather than arithmetic: "4 subjects = 186 + 62", "1/7 is equal to $24"."""
    left = equation.left
    if len(equation.relation.text) > 2 and left.pattern == "0/0":
        return True
    is_name = left.start > 0 or bool(left.words) or left.has_percent
    return equation.is_first and left.number is not None and is_name


def _is_ambiguous(equation: Equation) -> bool:
    """Whether a side may be read in two ways: "25 / 1/3", "1/3 of 150 + 6", "weeks 1-2"."""
    left, right = equation.left, equation.right
    if _has_share(right) or (_has_share(left) and re.search(r"[-+]", left.pattern)):
        return True
    is_range = left.start > 0 and left.pattern == "0-0" and left.used[0].end == left.used[1].start
    is_count = "times" in equation.source(right)  # "= 20 times 2 people"
    return (is_range and right.number is None) or is_count or any(map(_divides_by_fraction, (left, right)))


def _has_share(side: Side) -> bool:
    return any(token.text == "of" and before.kind != "word" for before, token in pairwise(side.used))


def _divides_by_fraction(side: Side) -> bool:
    """Whether a proper fraction follows a division sign, as in 25 / 1/3 and 14 / 1 / 4."""
    signs = [token for token in side.used if token.kind != "word"]
    return any(
        [divide.text, slash.text] == ["/", "/"]
        and one.kind == other.kind == "number"
        and number_value(one.text) < number_value(other.text)
        for divide, one, slash, other in zip(signs, signs[1:], signs[2:], signs[3:], strict=False)
    )


def _may_convert(equation: Equation) -> bool:
    """Whether units may be converted: two of a group are named, or the sides differ by a usual factor."""
    left, right = equation.left, equation.right
    named = [side.units | ({"dollar"} if "$" in equation.source(side) else set()) for side in (left, right)]
    groups = [UNIT_GROUPS[unit] for unit in named[0] | named[1]]
    scales = {SCALES[singular(word)] for word in equation.line.lower().split() if singular(word) in SCALES}
    if len(groups) != len(set(groups)) or (scales and _adds_scaled(equation)):
        return True
    factors = {factor for unit in named[0] ^ named[1] for factor in CONVERSIONS[UNIT_GROUPS[unit]]} | scales
    values = [side.value(PERCENT_READINGS[0], frozenset()).low for side in (left, right)]
    return 0 not in values and bool({values[0] / values[1], values[1] / values[0]} & factors)


def _adds_scaled(equation: Equation) -> bool:
    sides = (equation.left, equation.right)
    return any(re.search(r"[-+]", side.pattern) and SCALES.keys() & side.words for side in sides)


def _goes_on(equation: Equation) -> bool:
    """Whether the right side goes on with the left one's value, as in 3 + 4 = 7 * 2 = 14."""
    if equation.is_last or equation.right.number is not None:
        return False
    values = [side.value(PERCENT_READINGS[0], frozenset()) for side in (equation.left, equation.right.beginning())]
    return values[0] == values[1]


DOUBTS: tuple[Callable[[Equation], bool], ...] = (
    _has_doubt_word, _names_a_quantity, _is_ambiguous, _goes_on, _may_convert
)  # fmt: skip
