import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.extractors.boxed import last_boxed, same_boxed
from trl_prune.data.rewriting.extractors.math_answer import math_answer, same_math
from trl_prune.data.rewriting.extractors.math_equality import is_quick


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{1}, then \boxed{\frac{1}{2}} of 7", Fraction(1, 2)),
        ("He has 5.\n#### 72", 72),
        ("#### 72\nI checked it 2 times.", 72),
        ("#### Step 1: add\n#### Step 2: check\nWe get 7.", 7),
        ("The answer is 12, because 3 * 4 = 12 in 1 step.", 12),
        ("The answer is 11. No: the answer is 12. It took 2 steps.", 12),
        ("The answer is below.\nIt is 9", 9),
        ("The final answer is: **$5**", 5),
        (r"The answer is $2\sqrt{3}$.", r"2\sqrt{3}"),
        (r"The answer is \(x = 4\).", 4),
        (r"\boxed{5\text{ apples}}", 5),
        (r"\boxed{x^2+1}", "x^2+1"),
        ("2 + 3 = 5", 5),
        ("we get 3 then 8 apples", 8),
        (r"\frac{3}{4}", Fraction(3, 4)),
        ("no answer", None),
        ("", None),
    ],
)
def test_the_final_answer_by_priority(text, answer):
    assert math_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1\frac{1}{2}}", "1.5"),
        (r"\boxed{2\sqrt{2}}", r"\sqrt{8}"),
        (r"\boxed{(x+1)^2}", "x^2 + 2x + 1"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{(1,2)}", "(1, 2)"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{25\%}", "25"),
        (r"\boxed{\$1{,}234.00}", "1234"),
        (r"\boxed{\text{Even}}", "even"),
        (r"\boxed{\pi/2}", r"\frac{\pi}{2}"),
        ("The answer is 5 apples.", "#### 5"),
        ("The answer is 10 x 2 = 20 dollars", "20"),
        ("The answer is 20 - 2", "18"),
        ("The answer is 18 (5 + 13).", "18"),
        ("The answer is 18 dollars, so she has 18 left.", "18"),
        (r"First \boxed{3}. Then we get \boxed{4}", "4"),
        (r"\boxed{18\text{ apples}}", r"18\text{apple}"),
        (r"\boxed{18\text{ cm}}", "18"),
    ],
)
def test_equal_answers_agree(text, expected):
    assert same_math(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{5}", "6"),
        (r"\boxed{5!}", "5"),
        (r"\boxed{2\pi}", "2"),
        (r"\boxed{3 million}", "3"),
        (r"\boxed{\text{even}}", "neve"),
        (r"\boxed{x=1, x=2}", "x=3, x=2"),
        (r"\boxed{18\text{ cm}}", r"18\text{ m}"),
        (r"\boxed{3} or \boxed{4}", "4"),
        (r"$\boxed{3}$ and $\boxed{4}$", "4"),
        ("The answer is not 18.", "18"),
        ("The answer isn't 18 but 20.", "18"),
        ("The answer cannot be 18", "18"),
        ("The answer is not $18$.", "18"),
        ("The answer is $18$ or $20$.", "20"),
        ("The answer is 18 or 20.", "18"),
        ("The answer is 18 or 20.", "20"),
        ("The answer is either 18 or maybe 20", "18"),
        ("The answer is 18 hundred", "18"),
        ("The answer is 18 minus 3", "18"),
        ("The answer is more than 18", "18"),
        ("The answer is negative 18", "18"),
        ("The answer is between 10 and 18", "10"),
        ("The answer is 5 hours and 30 minutes", "5"),
        ("The answer is 2:30 PM", "2"),
        ("The answer is 10 x 2 = 20 dollars", "10"),
        ("The answer is 20 - 2", "20"),
        ("The answer is x = 3 and y = 4", "x = 3"),
        ("The answer is x = 3 and y = 4", "4"),
        ("nothing", "5"),
        ("5", ""),
    ],
)
def test_other_answers_disagree(text, expected):
    assert not same_math(text, expected)


@pytest.mark.parametrize(
    "expression",
    [
        "9^{9^{9^9}}",
        "9^9^9",
        "9**9**9",
        "((9^{99})^{99})^{99}",
        "9^{99999999}",
        "1000000!",
        "((9!)!)!",
        r"\sum_{k=1}^{9999999} k",
        "7" * 100,
        "x+" * 200 + "1",
    ],
)
def test_expressions_that_would_take_long_are_not_computed(expression):
    assert not is_quick(expression)
    assert not same_math(rf"\boxed{{{expression}}}", "5")
    assert same_math(rf"\boxed{{{expression}}}", rf"\boxed{{{expression}}}")  # as written


@pytest.mark.parametrize("expression", ["x^2+1", r"2^{10}", r"\frac{5!}{3!}", r"e^{-x}", r"x^\circ", r"10^{12}"])
def test_usual_expressions_are_computed(expression):
    assert is_quick(expression)


def test_expressions_are_compared_in_other_threads_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(same_math(r"\boxed{2\sqrt{2}}", r"\sqrt{8}")))
    thread.start()
    thread.join()
    assert found == [True]


@given(st.integers(-(10**6), 10**6), st.sampled_from([r"\boxed{%s}", "#### %s", "The answer is %s.", "It is %s"]))
def test_whole_numbers_are_found_in_each_form(number, form):
    assert math_answer(form % f"{number:,}") == number
    assert not same_math(form % (number + 1), str(number))


def test_boxed_answers_balance_braces():
    assert last_boxed(r"so \boxed{\frac{1}{2}} it is") == r"\frac{1}{2}"
    assert last_boxed(r"\boxed{1} then \boxed{ 2 }") == "2"
    assert last_boxed("nothing") is None
    assert last_boxed(r"\boxed{open") is None
    assert same_boxed(r"thus \boxed{ 12 }", r"\boxed{12}")
    assert same_boxed(r"thus \boxed{12}", "12")
    assert same_boxed(r"thus \boxed{\frac{1}{2}}", "0.5")
    assert same_boxed(r"thus \boxed{2\sqrt{2}}", r"\sqrt{8}")
    assert not same_boxed("12", r"\boxed{12}")
    assert not same_boxed(r"\boxed{13}", r"\boxed{12}")
