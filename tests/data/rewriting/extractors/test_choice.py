import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.extractors.choice import choice_letter, same_choice


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. Paris", "B"),
        ("C) green", "C"),
        ("D: blue", "D"),
        ("The answer is B.", "B"),
        ("The answer is (B) because it is", "B"),
        ("The answer is A", "A"),
        ("The answer is A because", "A"),
        ("the correct option is (C)", "C"),
        ("Answer: **(D) blue**", "D"),
        ("Answer:\nA", "A"),
        ("THE ANSWER IS B", "B"),
        (r"So \boxed{C}", "C"),
        (r"The answer is \text{E}.", "E"),
        ("I think B is correct.", "B"),
        ("Option B is the best answer", "B"),
        ("I would choose option D here", "D"),
        ("Let us see.\n\nC", "C"),
        ("The answer is A. Wait, the answer is B.", "B"),
        ("The wrong answer is A. The right answer is C", "C"),
        ("It is **B. Paris**, of course", "B"),
        ("Only (B) fits", "B"),
        ("The answer is A, I think.", "A"),
        ("The answer is A. B and C are wrong.", "A"),
        ("(A) is wrong, (B) fits", "B"),
        ("A is wrong and B is correct.", "B"),
    ],
)
def test_the_letter_of_a_choice(text, letter):
    assert choice_letter(text) == letter
    assert same_choice(text, f"{letter}. something")


@pytest.mark.parametrize(
    "text",
    [
        "A dog barked",
        "The answer is A dog",
        "I think so",
        "The answer is not B",
        "Option B is wrong",
        "The answer is A or B",
        "The correct answer is A and B.",
        "The answer is A, B, and C.",
        "The answer is (A) and (B).",
        "The answer is A & B",
        "The answer is (A) and B",
        r"\boxed{A, B}",
        r"\boxed{A} or \boxed{B}",
        "A and B is correct",
        "I would not choose B",
        "I wouldn't pick option B",
        "I can\N{RIGHT SINGLE QUOTATION MARK}t go with B",
        "The answer is not (B)",
        "The answer cannot be **B**",
        "Option (B) is wrong",
        "(A) and (B) fit",
        "**A** and **B**",
        "A. Rome\nB. Paris\nC. Oslo",
        "answer is: Gold",
        "Paris",
        "",
    ],
)
def test_texts_without_one_choice(text):
    assert choice_letter(text) is None
    assert not same_choice(text, "A")
    assert not same_choice("A", text)


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"))
def test_letters_agree_with_themselves_only(one, other):
    assert same_choice(f"The answer is ({one}).", other) == (one == other)
