import pytest

from trl_prune.data.rewriting.thoughts import answer_after_thoughts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 5.", "It is 5."),
        ("<think>2 + 3 = 6?</think>\n\nIt is 5.", "It is 5."),
        ("2 + 3 = 6?</think>It is 5.", "It is 5."),  # the template wrote the opening tag
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think></think>", ""),
        ("<think>It is 5", None),
        ("<think>a</think>It is<think>b", None),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text, answer):
    assert answer_after_thoughts(text) == answer
