import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.answer_types import (
    choice_letter,
    contains_phrase,
    last_boxed,
    last_number,
    same_boxed,
    same_choice,
    same_number,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("first 5, then 10", 10),
        ("costs $1,234.50 in all", 1234.5),
        ("1,2", 2),  # two numbers, not 12
        ("5 10", 10),
        ("minus -7", -7),
        ("3.50", 3.5),
        ("none", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@given(st.integers(-(10**9), 10**9))
def test_numbers_agree_with_and_without_thousands_separators(number):
    assert same_number(f"So we get {number:,}.", f"#### {number}")
    assert not same_number(f"So we get {number + 1}.", f"#### {number}")


def test_boxed_answers_balance_braces():
    assert last_boxed(r"so \boxed{\frac{1}{2}} it is") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{1} then \boxed{ 2 }") == "2"
    assert last_boxed("nothing") is None
    assert last_boxed(r"\boxed{open") is None
    assert same_boxed(r"thus \boxed{ 12 }", r"\boxed{12}")
    assert same_boxed(r"thus \boxed{12}", "12")
    assert not same_boxed("12", r"\boxed{12}")


def test_choice_letters():
    assert choice_letter("The answer is (B) because") == "B"
    assert choice_letter("C) green") == "C"
    assert choice_letter("A") == "A"
    assert choice_letter("A dog barked") is None
    assert same_choice("I think the answer is D.", "D")
    assert not same_choice("no letter", "D")


def test_phrases_match_whole_words_in_any_case():
    assert contains_phrase("It is PARIS, of course", "Paris")
    assert contains_phrase("The capital is  New\nYork.", "new york")
    assert not contains_phrase("the theory", "he")
    assert not contains_phrase("anything", "")
