import pytest

from trl_prune.data.rewriting.thoughts import answer_after_thoughts, opened_thought


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is 5.", "It is 5."),
        ("<think>2 + 3 = 6?</think>\n\nIt is 5.", "It is 5."),
        ("\n<think>a</think><think>b</think>c", "c"),
        ("[THINK]2 + 3 = 6?[/THINK]It is 5.", "It is 5."),
        ("<seed:think>a</seed:think>b", "b"),
        ("<think></think>", ""),
        ("<think>It is 5", None),
        ("<think>a</think><think>b", None),
        ("Close it with </think>, then write.", "Close it with </think>, then write."),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text, answer):
    assert answer_after_thoughts(text) == answer


def test_a_chat_template_may_open_the_thought():
    assert opened_thought("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened_thought("<|im_start|>assistant\n") == ""
