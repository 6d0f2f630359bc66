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
    text = re.sub(r"\{,\}|\\,(?=\d{3})", ",", text)
    text = re.sub(r"\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r" \1/\2", text).replace(r"\$", "$")
    return [_number(match) for match in NUMBER.finditer(text) if len(match.group()) <= MAX_DIGITS]


def last_number(text: str) -> Fraction | None:
    """Return the value of a text's last number, exactly, or None."""
    numbers = numbers_of(text)
    return numbers[-1].value if numbers else None


def same_number(rewrite: str, reference: str) -> bool:
    """Return whether the last numbers of both texts are equal by value."""
    found, expected = numbers_of(rewrite), numbers_of(reference)
    return bool(found and expected) and found[-1].equals(expected[-1])


def _number(match: re.Match) -> Number:
    value = Fraction((match["part"] or match["fraction"] or match["decimal"]).replace(",", ""))
    if match["whole"] and value < 1:  # "2 1/2", but "step 2 12/4" ends with 12/4
        value += int(match["whole"])
    is_negative = bool(match["sign"] or match["inner_sign"])
    return Number(-value if is_negative else value, bool(match["percent"]))
