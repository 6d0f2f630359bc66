import pytest

from trl_prune.data.rewriting.acceptance import (
    BANNED_PHRASES,
    REFERENCE,
    REWRITTEN,
    acceptance_by_capability,
    is_repetitive,
    rejection_reason,
    verdict_of,
    with_chosen_answer,
)


OPEN = {"prompt": "Why is the sky blue?", "completion": "Air scatters blue light most.", "answer_type": "open"}
NUMBER = {"prompt": "2 + 3?", "completion": "2 + 3 = 5. #### 5", "answer_type": "number"}


@pytest.mark.parametrize(
    ("text", "reason"),
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
def test_rejection_reasons(text, reason):
    assert rejection_reason(text) == reason


@pytest.mark.parametrize("phrase", BANNED_PHRASES)
def test_phrases_are_banned_in_any_case(phrase):
    assert rejection_reason(f"Well, {phrase.upper()} is fine") == "banned_phrase"


def test_truncated_answers_are_rejected():
    assert rejection_reason("A fine start", finished=False) == "truncated"


def test_repetitive_texts_are_distinguished_from_long_ones():
    assert is_repetitive("a b c d e f " * 3)
    assert not is_repetitive(" ".join(str(number) for number in range(300)))


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
def test_verdicts(row, rewrite, verdict):
    assert verdict_of(row, rewrite, finished=True) == verdict


def test_the_reference_is_kept_if_the_rewrite_is_rejected():
    rejected = with_chosen_answer(NUMBER, "It is 6.", finished=True)
    assert rejected["completion"] == NUMBER["completion"]
    assert (rejected["provenance"], rejected["verdict"]) == (REFERENCE, "disagrees")
    accepted = with_chosen_answer(NUMBER, " It is 5. ", finished=True)
    assert accepted["completion"] == "It is 5."
    assert (accepted["provenance"], accepted["verdict"]) == (REWRITTEN, "accepted")
    assert accepted["reference_answer"] == NUMBER["completion"]
    assert accepted["prompt"] == NUMBER["prompt"]  # the training prompt never contains the reference
    assert with_chosen_answer({"text": "x"}, None, True)["verdict"] == "not_asked"


def test_acceptance_by_capability():
    rows = [
        with_chosen_answer(NUMBER | {"capability": "sums"}, "5", True),
        with_chosen_answer(NUMBER | {"capability": "sums"}, "6", True),
        with_chosen_answer(OPEN | {"capability": "why"}, "Scattering.", True),
    ]
    acceptance = acceptance_by_capability(rows)
    assert acceptance["all"]["acceptance_rate"] == pytest.approx(2 / 3)
    assert acceptance["sums"] == {"rows": 2, "acceptance_rate": 0.5, "verdicts": {"accepted": 1, "disagrees": 1}}
    assert set(acceptance_by_capability([with_chosen_answer(NUMBER, "5", True)])) == {"all"}
