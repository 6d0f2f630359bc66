import pytest

from trl_prune.data.rewriting.answer_types import shipped_answer_types
from trl_prune.data.rewriting.requests import Asking, rewriting_request
from trl_prune.data.rewriting.turns import turns
from trl_prune.errors import InputError


OPEN = {"prompt": "Why is the sky blue?", "completion": "Air scatters blue light most."}
NUMBER = {"prompt": "2 + 3?", "completion": "2 + 3 = 5. #### 5"}


def request(row, asking=None):
    asking = asking or Asking()
    return rewriting_request(row, turns(row, asking.response_template)[-1], asking)


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
    messages = request(row).messages
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"].endswith("Be brief.")
    # Braces in the user's own text are text.
    assert "### Instruction:\nSum {reference}?" in messages[-1]["content"]
    assert "The {instruction} sum" in messages[-1]["content"]
    assert request(row).turn.instruction == "Sum {reference}?"


def test_after_a_tools_result_the_users_message_is_the_request():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
    tool = {"role": "tool", "content": "12:00"}
    row = {"messages": [{"role": "user", "content": "Time?"}, call, tool, {"role": "assistant", "content": "Noon."}]}
    messages = request(row | {"tools": '[{"name": "clock"}]'}).messages
    assert "### Instruction:\nTime?" in messages[1]["content"]
    assert messages[2:] == [call, tool]
    assert request(row | {"tools": '[{"name": "clock"}]'}).tools == [{"name": "clock"}]


@pytest.mark.parametrize(
    ("row", "asking", "chosen"),
    [
        (NUMBER | {"answer_type": "boxed"}, Asking("open", dataset_name="alpaca"), ("boxed", "column")),
        (NUMBER | {"answer_type": None}, Asking("open", dataset_name="alpaca"), ("open", "setting")),
        (NUMBER, Asking(dataset_name="tatsu-lab/alpaca"), ("general", "dataset")),
        (NUMBER, Asking(), ("math", "reference")),
        (OPEN, Asking(), ("open", "reference")),
    ],
)
def test_the_type_is_chosen_by_column_setting_dataset_or_reference(row, asking, chosen):
    assert (request(row, asking).type_name, request(row, asking).chosen_by) == chosen


def test_an_unknown_type_in_the_column_is_named():
    with pytest.raises(InputError, match="answer_type in the dataset is 'nummer'.*did you mean 'number'"):
        request(NUMBER | {"answer_type": "nummer"})


def test_the_answer_column_is_about_the_last_answer():
    question, answer = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "It is 5."}
    row = {"messages": [question, answer, question, answer], "answer": 5}
    first, last = (rewriting_request(row, turn, Asking()) for turn in turns(row))
    assert (first.expected, last.expected) == ("It is 5.", "5")


def test_a_rows_template_variables_go_before_the_settings():
    row = OPEN | {"chat_template_kwargs": {"enable_thinking": True, "documents": None}}
    variables = request(row, Asking(chat_template_kwargs={"enable_thinking": False, "x": 1})).chat_template_kwargs
    assert variables == {"enable_thinking": True, "x": 1}


def test_answers_of_type_none_have_no_request():
    assert request(OPEN | {"answer_type": "none"}).answer_type is None
    assert request(NUMBER).answer_type == shipped_answer_types()["math"]
