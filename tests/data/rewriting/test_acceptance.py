import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.acceptance import (
    BANNED,
    REFERENCE,
    REWRITTEN,
    acceptance,
    is_looping,
    rejection_reason,
    verdict_of,
    with_chosen_answer,
)
from trl_prune.data.rewriting.answer_types import (
    ANSWER_TYPES,
    boxed,
    choice_letter,
    has_phrase,
    last_number,
    same_boxed,
    same_choice,
    same_number,
)
from trl_prune.data.rewriting.requests import rewriting_request


OPEN = {"prompt": "Why is the sky blue?", "completion": "Air scatters blue light most.", "answer_type": "open"}
NUMBER = {"prompt": "2 + 3?", "completion": "2 + 3 = 5. #### 5", "answer_type": "number"}


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
def test_numbers_agree_however_they_are_written(number):
    assert same_number(f"So we get {number:,}.", f"#### {number}")
    assert not same_number(f"So we get {number + 1}.", f"#### {number}")


def test_boxed_answers_balance_braces():
    assert boxed(r"so \boxed{\frac{1}{2}} it is") == r"\frac{1}{2}"
    assert boxed(r"\boxed{1} then \boxed{ 2 }") == "2"
    assert boxed("nothing") is None
    assert boxed(r"\boxed{open") is None
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


def test_phrases_are_whole_words_in_any_case():
    assert has_phrase("It is PARIS, of course", "Paris")
    assert has_phrase("The capital is  New\nYork.", "new york")
    assert not has_phrase("the theory", "he")
    assert not has_phrase("anything", "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" .,! ", "empty"),
        ("### Response:\nBlue.", "echo"),
        ("Below are an instruction that", "echo"),
        ("Your turn! What do you think?", "banned_phrase"),
        ("As the reference answer says, blue.", "banned_phrase"),
        ("As an AI language model, I cannot", "refusal"),
        ("the same six words every time " * 3, "repetition"),
        ("Blue light scatters most.", None),
    ],
)
def test_faults(text, fault):
    assert rejection_reason(text) == fault


@pytest.mark.parametrize("phrase", BANNED)
def test_banned_phrases_whatever_their_case(phrase):
    assert rejection_reason(f"Well, {phrase.upper()} is fine") == "banned_phrase"


def test_truncation_is_a_fault():
    assert rejection_reason("A fine start", finished=False) == "truncated"


def test_loops_are_told_from_long_answers():
    assert is_looping("a b c d e f " * 3)
    assert not is_looping(" ".join(str(number) for number in range(300)))


@pytest.mark.parametrize(
    ("row", "rewrite", "verdict"),
    [
        (NUMBER, "Two and three make 5.", "accepted"),
        (NUMBER, "Two and three make 6.", "disagrees"),
        (NUMBER | {"answer": "6"}, "Two and three make 6.", "accepted"),
        (OPEN, "Because of scattering.", "accepted"),
        (OPEN, "### Response: because", "echo"),
    ],
)
def test_judgement(row, rewrite, verdict):
    assert verdict_of(row, rewrite, finished=True) == verdict


def test_the_reference_stays_where_the_rewrite_fails():
    kept = with_chosen_answer(NUMBER, "It is 6.", finished=True)
    assert kept["completion"] == NUMBER["completion"]
    assert (kept["provenance"], kept["verdict"]) == (REFERENCE, "disagrees")
    new = with_chosen_answer(NUMBER, " It is 5. ", finished=True)
    assert new["completion"] == "It is 5."
    assert (new["provenance"], new["verdict"]) == (REWRITTEN, "accepted")
    assert new["reference_answer"] == NUMBER["completion"]
    assert new["prompt"] == NUMBER["prompt"]  # training never sees the reference in the prompt
    assert with_chosen_answer({"text": "x"}, None, True)["verdict"] == "not_asked"


def test_requests_show_the_reference_and_keep_the_talk():
    row = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Sum {reference}?"},
            {"role": "assistant", "content": "The {instruction} sum"},
        ]
    }
    request = rewriting_request(row)
    roles = [turn["role"] for turn in request.turns]
    assert roles == ["system", "user", "assistant", "user"]
    assert request.turns[0]["content"].endswith("Be brief.")
    # Braces in the user's own text are text.
    assert "### Instruction:\nSum {reference}?" in request.turns[-1]["content"]
    assert "The {instruction} sum" in request.turns[-1]["content"]


def test_math_rows_are_prefilled():
    assert rewriting_request(NUMBER).prefill == ANSWER_TYPES["number"].prefill != ""
    assert rewriting_request(OPEN).prefill == ""


@pytest.mark.parametrize(
    "row", [{"text": "x"}, {"prompt": "q", "completion": "  "}, {"messages": [{"role": "user", "content": "q"}]}]
)
def test_rows_without_an_answer_are_not_asked(row):
    assert rewriting_request(row) is None


def test_acceptance_counts_by_capability():
    rows = [
        with_chosen_answer(NUMBER | {"capability": "sums"}, "5", True),
        with_chosen_answer(NUMBER | {"capability": "sums"}, "6", True),
        with_chosen_answer(OPEN | {"capability": "why"}, "Scattering.", True),
    ]
    told = acceptance(rows)
    assert told["all"]["acceptance_rate"] == pytest.approx(2 / 3)
    assert told["sums"] == {"rows": 2, "acceptance_rate": 0.5, "verdicts": {"accepted": 1, "disagrees": 1}}
    assert set(acceptance([with_chosen_answer(NUMBER, "5", True)])) == {"all"}
