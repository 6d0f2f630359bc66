from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.extractors.number import last_number, same_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("first 5, then 10", 10),
        ("5 10", 10),
        ("1,2", 2),
        ("1234,567", 567),
        ("It costs $1,234.50 in all.", Fraction("1234.5")),
        ("1{,}234", 1234),
        ("3.50", Fraction("3.5")),
        ("it is .5", Fraction("0.5")),
        ("it is -7", -7),
        ("\N{MINUS SIGN}7", -7),
        ("-$7", -7),
        ("$-7", -7),
        ("10-5", 5),
        ("10 - 5", 5),
        ("- 5 apples", 5),
        ("25%", 25),
        ("3/4", Fraction(3, 4)),
        ("2 1/2", Fraction(5, 2)),
        ("step 2 12/4", 3),
        (r"\frac{3}{4}", Fraction(3, 4)),
        ("4/0", 0),
        ("12/25/2020", 2020),
        ("(a) 12", 12),
        ("25 m^2", 25),
        ("H2O", None),
        ("The answer is not 18.", None),
        ("It can't be 18", None),
        ("18 or 20", None),
        ("more than $18", None),
        ("20 minus 2", None),
        ("18 hundred", None),
        ("at 2:30", None),
        ("none", None),
        ("9" * 5000, None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [("25%", "25"), ("25%", "0.25"), ("0.75", "3/4"), ("So $1,234.00.", "#### 1234"), ("12.0", "12")],
)
def test_numbers_agree_by_value(text, expected):
    assert same_number(text, expected)


@pytest.mark.parametrize(("text", "expected"), [("25%", "0.25%"), ("5", "-5"), ("5", "6"), ("", "5"), ("5", "five")])
def test_other_numbers_disagree(text, expected):
    assert not same_number(text, expected)


@given(st.integers(-(10**12), 10**12))
def test_numbers_agree_with_and_without_thousands_separators(number):
    assert same_number(f"So we get {number:,}.", f"#### {number}")
    assert same_number(f"So we get {number:,}.00 dollars", str(number))
    assert not same_number(f"So we get {number + 1}.", f"#### {number}")


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_decimals_are_exact(number):
    text = f"{number:f}"
    assert last_number(f"It is {text}.") == Fraction(number)
    assert not same_number(f"{number + Decimal('0.000001'):f}", text)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_fractions_are_exact(numerator, denominator):
    assert last_number(f"x = {numerator}/{denominator}") == Fraction(numerator, denominator)
