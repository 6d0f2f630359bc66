"""The last number of a text, by value."""

import re
from fractions import Fraction
from typing import NamedTuple


# Longer numbers are no answers; Python refuses to convert very long ones.
MAX_DIGITS = 300


MINUS_SIGNS = "-\N{MINUS SIGN}\N{EN DASH}"


# A minus sign belongs to the number unless something is subtracted from; digits of names (H2O) and exponents are none.
NUMBER = re.compile(
    rf"""
    (?:(?<![\w)\]}}%.])(?P<sign>[{MINUS_SIGNS}]))? (?<![\w^_]) [$€£]? (?P<inner_sign>(?<=[$€£])-)?
    (?: (?P<whole>\d+)\ (?P<part>\d+/0*[1-9]\d*)(?![\d/]|\.\d)
      | (?<!/)(?P<fraction>\d+/0*[1-9]\d*)(?![\d/]|\.\d)
      | (?P<decimal>\d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+) )
    (?P<percent>\s?\\?%|\ percent\b)?
    """,
    re.VERBOSE,
)


# Words beside a number that make it another one, an alternative or none.
SCALE = r"(?:half|dozens?|hundreds?|thousands?|millions?|billions?|trillions?)(?![a-zA-Z])"
DENIAL = r"(?:\b(?:not|cannot|never|nor|or|than|minus|negative)\b|n['\N{RIGHT SINGLE QUOTATION MARK}]t\b)"
ALTERED_BEFORE = re.compile(rf"{DENIAL}\s+(?:\w+\s+){{0,2}}\W*$|\d:$", re.IGNORECASE)
ALTERED_AFTER = re.compile(rf"\W{{0,3}}{SCALE}", re.IGNORECASE)


class Number(NamedTuple):
    """A number of a text: its value, 25 for 25 %, and whether it is a percentage."""

    value: Fraction
    is_percent: bool

    def __str__(self) -> str:
        return f"{self.value}{'%' if self.is_percent else ''}"

    def equals(self, other: "Number") -> bool:
        """Return whether both numbers have one value; a percentage is also that share of one."""
        if self.is_percent == other.is_percent:
            return self.value == other.value
        percent, plain = (self.value, other.value) if self.is_percent else (other.value, self.value)
        return plain in (percent, percent / 100)


def numbers_of(text: str) -> list[Number]:
    """Return the numbers of a text, in order: 1,234 is one, "5 10" and "1,2" are two, 3/4 and 2 1/2 are one."""
    return [_number(match) for match in _matches(_plain(text))]


def final_number(text: str) -> Number | None:
    """Return the last number of a text, or None, also if the words beside it change it: "not 18", "18 hundred"."""
    text = _plain(text)
    last = next(reversed(_matches(text)), None)
    if last is None or ALTERED_BEFORE.search(text[: last.start()]) or ALTERED_AFTER.match(text, last.end()):
        return None
    return _number(last)


def last_number(text: str) -> Fraction | None:
    """Return the value of a text's last number, exactly; None if none, or if the words beside it change it."""
    number = final_number(text)
    return number.value if number else None


def same_number(rewrite: str, reference: str) -> bool:
    """Return whether the last numbers of both texts are equal by value, and no word beside them changes them."""
    found, expected = final_number(rewrite), final_number(reference)
    return found is not None and expected is not None and found.equals(expected)


def _plain(text: str) -> str:
    text = re.sub(r"\{,\}|\\,(?=\d{3})", ",", text)
    return re.sub(r"\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2", text).replace(r"\$", "$")


def _matches(text: str) -> list[re.Match]:
    return [match for match in NUMBER.finditer(text) if len(match.group()) <= MAX_DIGITS]


def _number(match: re.Match) -> Number:
    value = Fraction((match["part"] or match["fraction"] or match["decimal"]).replace(",", ""))
    if match["whole"] and value < 1:  # "2 1/2", but "step 2 12/4" ends with 12/4
        value += int(match["whole"])
    is_negative = bool(match["sign"] or match["inner_sign"])
    return Number(-value if is_negative else value, bool(match["percent"]))
