import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.arithmetic import wrong_equation


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("48/2 = 23", "48/2 = 23"),
        ("3 x 4 = 13", "3 x 4 = 13"),
        ("2*$5=$9", "2*$5=$9"),
        ("20% of 50 = 12", "20% of 50 = 12"),
        ("1/2 * 10 = 4", "1/2 * 10 = 4"),
        ("5 + 3 = 8 = 9", "8 = 9"),
        ("n = 5 + 3 = 9", "5 + 3 = 9"),
        (r"$3 \times 4 = 13$", r"3 \times 4 = 13"),
        (r"\(5 + 3 = \boxed{9}\)", "5 + 3 = 9"),
        (r"\frac{1}{2} \times 10 = 6", r"((1)/(2)) \times 10 = 6"),
        (r"10 \div 2 = 4", r"10 \div 2 = 4"),
        ("10 \N{DIVISION SIGN} 2 = 4", "10 / 2 = 4"),
        ("3 \N{MULTIPLICATION SIGN} 4 = 11", "3 * 4 = 11"),
        ("9 \N{MINUS SIGN} 4 = 6", "9 - 4 = 6"),
        ("1,200 + 300 = 1,600", "1,200 + 300 = 1,600"),
        ("5 apples + 3 apples = 9 apples", "5 apples + 3 apples = 9 apples"),
        ("7 stickers/page * 6 pages= 41 stickers", "7 stickers/page * 6 pages= 41 stickers"),
        ("48/2=<<48/2=25>>25", "48/2=25"),
        ("10/3 = 3.35", "10/3 = 3.35"),
        ("10/3 \u2248 4", "10/3 \u2248 4"),
        ("2^3 = 9", "2^3 = 9"),
        ("5\N{SUPERSCRIPT TWO} = 26", "5^2 = 26"),
        ("She has (3 + 4) * 2 = 15 apples", "(3 + 4) * 2 = 15 apples"),
        ("2(3+4) = 15", "2(3+4) = 15"),
        ("Total: $1,000 - $200 = $700.", "1,000 - $200 = $700"),
        ("**5 + 3 = 9**", "5 + 3 = 9"),
        ("5 times 3 equals 16", "5 times 3 equals 16"),
        ("100% - 20% = 70%", "100% - 20% = 70%"),
        ("15/60 = 26%", "15/60 = 26%"),
        ("1. 5 + 3 = 9", "5 + 3 = 9"),
        ("2 1/2 * 4 = 11", "2 1/2 * 4 = 11"),
        ("1 + 1 = 2\n2 + 2 = 5\n3 + 3 = 7", "2 + 2 = 5"),
        ("So he is left with 10 - 7 = 5 remaining.", "10 - 7 = 5 remaining"),
    ],
)
def test_false_steps_are_found(text, equation):
    assert wrong_equation(text) == equation


@pytest.mark.parametrize(
    "text",
    [
        "48/2 = 24",
        "3 x 4 = 12",
        "$20 - $5 = $15",
        "20% of 50 = 10",
        "3/4 = 6/8",
        "2 + 3 = 4 + 1",
        "7 stickers/page * 6 pages= 42 stickers",
        "48/2=<<48/2=24>>24",
        "2(3+4) = 14",
        "1/2 of the 50 = 25",
        # right to the digits shown
        "10/3 = 3.33",
        "20/3 = 6.66",
        "20/3 = 6.67",
        "10/3 \u2248 3",
        "4.8 * 20.3 \u2248 100",
        "2/3 = 67%",
        "10/3 = 3.33\n3.33 * 3 = 10",
        "33.33 * 3 = 100",
        "100/3 = 33, rounded down",
        "20/240 = 8.333...%",
        # percentages in either reading
        "15/60 * 100 = 25%",
        "15/60 = 25%",
        "100 - 20% = 80",
        "50 + 20% = 60",
        # units
        "2 hours + 30 minutes = 2.5 hours",
        "5 x 20 cents = $1",
        "90 + 30 = 2 hours",
        "2 * 3 dozen = 72",
        "5 million + 3 = 8",
        "8 + 5 = 1 pm",
        # chains of a running total
        "3 + 4 = 7 x 2 = 14",
        "20 - 5 = 15 - 3 = 12",
    ],
)
def test_true_steps_pass(text):
    assert wrong_equation(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "x = 5",
        "2x + 3 = 7",
        "5 - x = 3",
        "5x/6=1200",
        "E - 5 = 16",
        "x_1 + 3 = 5",
        "f(3) + 1 = 8",
        "a^2 + b^2 = 25",
        "P(A) = 1/2",
        "2 pi * 3 = 18.84",
        "total * 3 = 12",
        "4 subjects = 186+62",
        "Since 1/7 is equal to $24",
        "3:30 - 2:15 = 1:15",
        "1:2 = 3:4",
        "12/25/2020 = 3",
        "0900-0130 = 0730 hours",
        "1 000 * 3 = 3 000",
        "half of 48 + 2 = 26",
        "5 less than 3 * 4 = 7",
        "the average of 5 + 3 = 4",
        "17 mod 5 + 1 = 3",
        "5! = 120",
        r"\sqrt{16} + 2 = 6",
        "sqrt(16) + 2 = 6",
        "log 100 + 1 = 3",
        "|5 - 8| = 3",
        "1 + 2 + ... + 10 = 55",
        "3 and a half + 2 = 5.5",
        "16 = 3 * 5 and 1/5",
        "25 / 1/3 = 75",
        "5 + 3 is not 8 + 1 = 10",
        "Weeks 1-2 = 96 - 70",
        "1/0 = 5",
        "9^9^9^9 = 4",
        "1e5 + 1 = 3",
        "```python\n5 + 3 = 9\n```",
        "(" * 5000 + "1 = 3",
        "1" * 5000 + " + 1 = 2",
        "1 + " * 3000 + "1 = 3",
        "2^" * 2000 + "2 = 4",
        "no equation",
        "",
    ],
)
def test_what_is_not_surely_arithmetic_is_not_checked(text):
    assert wrong_equation(text) is None


NUMBERS = st.integers(1, 500).map(lambda number: (str(number), Fraction(number), 3))


def joined(left, symbol, right):
    """Two expressions with an operator between them, as text, value and precedence."""
    level = 1 if symbol in "+-" else 2
    texts = [
        f"({text})" if own < level or (own == level and is_right) else text
        for (text, _, own), is_right in ((left, False), (right, True))
    ]
    operations = {"+": Fraction.__add__, "-": Fraction.__sub__, "*": Fraction.__mul__, "/": Fraction.__truediv__}
    return f"{texts[0]} {symbol} {texts[1]}", operations[symbol](left[1], right[1]), level


EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda parts: (
        st.tuples(parts, st.sampled_from("+-*/"), parts)
        .filter(lambda part: part[1] != "/" or part[2][1] != 0)
        .map(lambda part: joined(*part))
    ),
    max_leaves=6,
).filter(lambda expression: expression[2] < 3)


@given(EXPRESSIONS)
def test_sums_products_and_brackets_are_computed_exactly(expression):
    text, value, _ = expression
    assert wrong_equation(f"So {text} = {value} in all") is None
    if "/" not in text:
        assert wrong_equation(f"So {text} = {value + 1} in all") == f"{text} = {value + 1} in all"


@given(st.integers(1, 10**7), st.integers(1, 10**4), st.integers(1, 4))
def test_rounded_and_cut_quotients_pass_and_others_do_not(dividend, divisor, digits):
    value = Fraction(dividend, divisor)
    unit = Fraction(1, 10**digits)
    cut = (value // unit) * unit
    for shown in (cut, round(value, digits)):
        assert wrong_equation(f"{dividend}/{divisor} = {float(shown):.{digits}f}") is None
    assert wrong_equation(f"{dividend}/{divisor} = {float(cut - unit):.{digits}f}") is not None or cut < unit


def test_most_corrupted_steps_of_worked_answers_are_found():
    random.seed(0)
    names = ("apples", "pages", "marbles")
    found = 0
    for _ in range(200):
        one, other, name = random.randint(10, 99), random.randint(2, 9), random.choice(names)
        text = f"Ann has {one} {name}.\nBob has {one}*{other} = {one * other + 1} {name}, which is 3 more.\n#### {one}"
        found += wrong_equation(text) is not None
    assert found == 200
