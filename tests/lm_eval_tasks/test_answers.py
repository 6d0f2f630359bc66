"""Answers of the generative probes are read out of sentences; what only says the question again is no answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_tasks.recovery_probes.answers import read_answer, read_answers


SUM = {"prompt": "Sarah has 8 shells and loses 4. 8 - 4 =", "answer": "4"}
RECORD = {"prompt": "Tom, a cook from Lima, sold a red hat on Monday.\nColor:", "answer": "red"}
PLURAL = {"prompt": "army:", "answer": "armies"}


@pytest.mark.parametrize(
    "text",
    [
        " 4",
        " 4 and so on",
        "4.",
        "**4**",
        "8 - 4 = 4",
        "8 - 4 = **4** shells.",
        "The answer is 4.",
        "Sarah has 4 shells left.",
        "The sum of 8 and -4 is 4.",
        "Sarah has 8 shells and loses 4. She has 4 shells.",
        "Sarah has 8 shells and loses 4. 8 - 4 = 4",
        "If she loses 4 of 8, then 8 - 4 = 4.",
    ],
)
def test_a_number_is_read_in_an_equation_and_in_a_sentence(text):
    assert read_answer(text, SUM) == "4"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 5",
        " 14",
        "8 - 4",
        "8 - 4 =",
        "We compute 8 - 4",
        "8 - 4 = x",
        "Sarah has 8 shells and loses 4.",
        "Let's break it down: Sarah has 8 shells and loses 4",
        "It is 4 + 1.",
        "The answer is 4, or 5.",
        "We start. The answer is 4.",
    ],
)
def test_other_numbers_terms_and_the_question_itself_are_not_the_answer(text):
    assert read_answer(text, SUM) != "4"


@pytest.mark.parametrize(
    "text",
    [
        " red",
        " Red hat",
        "a red hat",
        "Color: red",
        "The color is red.",
        "The color of the hat is **red**, as stated.",
        "The hat's color is 'red'.",
        "Tom, a cook from Lima, sold a red hat on Monday. Color: red",
    ],
)
def test_a_word_is_read_alone_and_behind_what_gives_it(text):
    assert read_answer(text, RECORD).lower() == "red"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tom, a cook from Lima, sold a red hat on Monday.",
        "Tom sold a red hat",
        "The hat is big and red.",
        "1",
        "?",
    ],
)
def test_a_word_somewhere_in_a_sentence_is_not_the_answer(text):
    assert read_answer(text, RECORD).lower() != "red"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("armies", "armies"),
        ("army: armies", "armies"),
        ('The plural of "army" is "armies".', "armies"),
        ("army", "army"),
        ("The army is big.", "big"),
    ],
)
def test_a_plural_is_read_behind_the_word_that_was_asked_for(text, answer):
    assert read_answer(text, PLURAL) == answer


@given(
    st.integers(-9999, 9999), st.sampled_from([" {}", "{}", "{}.", "= {}", "It is {}.", "The answer is: {}", "**{}**"])
)
def test_every_number_is_read_in_each_form(number, form):
    doc = {"prompt": "What is it?", "answer": str(number)}
    assert read_answer(form.format(number), doc) == str(number)


@given(
    st.integers(2, 9),
    st.integers(2, 9),
    st.sampled_from(
        ["{0}", "Let's see: {0}", "{0} So", "The question is: {0}", "{1} and", "We know that {2}", "To solve {1} we"]
    ),
)
def test_saying_the_question_again_never_passes(a, b, form):
    """Also where the number that is taken away is the number that is left."""
    prompt = f"Otto has {a + b} nuts and sells {b}. {a + b} - {b} ="
    said = form.format(prompt, f"{a + b} - {b}", f"otto has {a + b} nuts and sells {b}.")
    assert read_answer(said, {"prompt": prompt, "answer": str(a)}) != str(a)


@given(st.text())
def test_any_text_gives_one_answer(text):
    assert read_answers([[text, text]], [SUM]) == [[read_answer(text, SUM)] * 2]
    assert isinstance(read_answer(text, RECORD), str)
