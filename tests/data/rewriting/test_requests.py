import pytest

from trl_prune.data.rewriting.answer_types import ANSWER_TYPES
from trl_prune.data.rewriting.requests import rewriting_request


OPEN = {"prompt": "Why is the sky blue?", "completion": "Air scatters blue light most.", "answer_type": "open"}
NUMBER = {"prompt": "2 + 3?", "completion": "2 + 3 = 5. #### 5", "answer_type": "number"}


def test_requests_contain_the_reference_and_the_earlier_messages():
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
    roles = [message["role"] for message in request.messages]
    assert roles == ["system", "user", "assistant", "user"]
    assert request.messages[0]["content"].endswith("Be brief.")
    # Braces in the user's own text are text.
    assert "### Instruction:\nSum {reference}?" in request.messages[-1]["content"]
    assert "The {instruction} sum" in request.messages[-1]["content"]


def test_math_rows_are_prefilled():
    assert rewriting_request(NUMBER).prefill == ANSWER_TYPES["number"].prefill != ""
    assert rewriting_request(OPEN).prefill == ""


@pytest.mark.parametrize(
    "row", [{"text": "x"}, {"prompt": "q", "completion": "  "}, {"messages": [{"role": "user", "content": "q"}]}]
)
def test_rows_without_an_answer_have_no_request(row):
    assert rewriting_request(row) is None
