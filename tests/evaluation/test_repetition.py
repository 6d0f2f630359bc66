"""Loops at the end of answers, and what looks like one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.evaluation.repetition import ends_in_loop


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 5. The answer is 5. The answer is 5. The answer",
        "hahahahahahahahahahahahahahaha",
        "So far so good.\n" + "I do not know.\n" * 4,
        "1" * 40,
    ],
)
def test_an_end_that_repeats_is_a_loop(text):
    assert ends_in_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no",
        "The answer is 5. The answer is 5.",
        "1. red apples\n2. green apples\n3. old apples",
        "I do not know. I do not know. I do not know. But then I found out.",
        "A table\n" + "-" * 40,
    ],
)
def test_other_ends_are_none(text):
    assert not ends_in_loop(text)


@settings(max_examples=50)
@given(st.text("abc", min_size=8, max_size=60), st.integers(0, 59), st.text("xy "))
def test_a_unit_repeated_three_times_and_cut_off_anywhere_is_a_loop(unit, cut, start):
    assert ends_in_loop(start + unit * 3 + unit[: cut % len(unit)])
