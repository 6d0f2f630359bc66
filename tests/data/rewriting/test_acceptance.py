"""Verdicts on rewritten answers; the parts are tested in their own modules."""

import pytest

from trl_prune.data.rewriting.acceptance import Accepting, judge
from trl_prune.data.rewriting.requests import Asking, rewriting_request
from trl_prune.data.rewriting.turns import turns


MATH = {"prompt": "4 boxes of 3, how many?", "completion": "4 * 3 = 12 #### 12", "answer_type": "math"}
SPAM = {"prompt": "Is it spam? 'Win now!!'", "completion": "spam", "answer_type": "phrase"}
CODE = {
    "prompt": "Double a number",
    "completion": "def double(x):\n    return 2 * x",
    "answer_type": "code",
    "tests": "assert double(2) == 4",
}


def verdict(row, text, finished=True, **accepting):
    return judge(rewriting_request(row, turns(row)[-1], Asking()), text, finished, Accepting(**accepting))


@pytest.mark.parametrize(
    ("row", "text", "reason"),
    [
        (MATH, "Four boxes hold 4 * 3 = 12 things. The answer is 12.", "accepted"),
        (MATH, "Four boxes hold 12.0 things.", "accepted"),
        (MATH, "4 * 3 = 13 things. The answer is 13.", "disagrees"),
        (MATH, "4 * 3 = 13, minus 1. The answer is 12.", "wrong_step"),
        (MATH, "Many things.", "no_answer"),
        (MATH | {"answer": "13"}, "That is 13.", "accepted"),
        (SPAM, "This is spam.", "accepted"),
        (SPAM, "This is not spam.", "disagrees"),
        (SPAM, "", "empty"),
        (SPAM, "### Response:\nThis is spam.", "accepted"),
        (SPAM, "### Instruction: spam", "echo"),
        (SPAM, "This is spam.\n\n### Response: spam", "echo"),
        (SPAM, "As the reference answer says, spam.", "banned_phrase"),
        (SPAM, "I'm sorry, but I can't say whether it is spam.", "refusal"),
        (CODE, "```python\ndef double(x):\n    return x + x\n```", "accepted"),
        (CODE, "```python\ndef double(x) return x\n```", "disagrees"),
        (CODE, "```python\ndef twice(x):\n    return x + x\n```", "disagrees"),
    ],
)
def test_verdicts(row, text, reason):
    assert verdict(row, text).reason == reason


def test_an_unfinished_answer_is_truncated():
    assert verdict(MATH, "The answer is 12", finished=False).reason == "truncated"


def test_the_requests_last_heading_is_no_part_of_the_answer():
    assert verdict(SPAM, "### Response:\nThis is spam.").answer == "This is spam."
    assert verdict(SPAM, "<think>a</think>### Response: spam", thoughts="keep").answer == "<think>a</think>spam"


def test_a_general_answer_is_judged_by_its_wording_alone():
    row = SPAM | {"answer_type": "general"}
    assert verdict(row, "This is not spam.").accepted
    assert not verdict(row, "My response: spam").accepted


def test_thoughts_are_not_the_answer():
    text = "<think>4 * 3 = 13? No, 4 * 3 = 12.</think>The answer is 12."
    assert verdict(MATH, text).reason == "accepted"
    assert verdict(MATH, text).answer == "The answer is 12."
    assert verdict(MATH, text, thoughts="keep").answer == text
    assert verdict(MATH, "<think>It is 12.</think>The answer is 13.").reason == "disagrees"
    assert verdict(MATH, "<think>It is 12.").reason == "truncated"


def test_code_is_run_only_if_the_user_says_so():
    wrong = "```python\ndef double(x):\n    return x\n```"
    assert verdict(CODE, wrong).accepted
    assert verdict(CODE, wrong, run_tests=True).reason == "fails_tests"
    assert verdict(CODE, CODE["completion"], run_tests=True).accepted
