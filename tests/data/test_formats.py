import pytest

from trl_prune.data.formats import answer_index, format_of, prompt_and_answer, template_variables
from trl_prune.errors import InputError


CONVERSATION = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TEXT_ROW = {"prompt": "Hi", "completion": "Hello"}
CONVERSATIONAL_ROW = {"prompt": CONVERSATION[:1], "completion": CONVERSATION[1:]}
MESSAGES_ROW = {"messages": CONVERSATION}


@pytest.mark.parametrize("row", [TEXT_ROW, CONVERSATIONAL_ROW, MESSAGES_ROW])
def test_every_format_splits_into_prompt_and_answer(row):
    assert prompt_and_answer(row) == (CONVERSATION[:1], "Hello")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Hi Hello"},
        {"messages": CONVERSATION[:1]},
        {"prompt": CONVERSATION[:1], "completion": CONVERSATION[1:] * 2},
        {"messages": [CONVERSATION[0], {"role": "assistant", "content": None, "tool_calls": [{}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, CONVERSATION[1]]},
    ],
)
def test_rows_without_a_text_answer_are_not_split(row):
    assert prompt_and_answer(row) is None


@pytest.mark.parametrize(
    ("columns", "expected"),
    [(["prompt", "completion", "x"], "prompt + completion"), (["messages"], "messages"), (["text"], "text")],
)
def test_format_of_columns(columns, expected):
    assert format_of(columns) == expected


def test_unusable_columns_are_named_with_the_usable_ones():
    with pytest.raises(InputError, match="question, answer; wanted: prompt \\+ completion or messages or text"):
        format_of(["question", "answer"])


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (CONVERSATION, 1),
        ([*CONVERSATION, CONVERSATION[0]], 1),
        ([*CONVERSATION, {"role": "assistant", "content": " "}], 1),
        ([CONVERSATION[0], {"role": "assistant", "content": "", "tool_calls": [{}]}], 1),
        (CONVERSATION[1:], 0),
        (CONVERSATION[:1], None),
    ],
)
def test_the_answer_is_the_assistants_last_word(messages, expected):
    assert answer_index(messages) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"a": 1, "b": None}),
        ({}, {"a": 1, "b": None}),
        ("", {"a": 1, "b": None}),
        ("null", {"a": 1, "b": None}),
        ({"a": 2, "c": None}, {"a": 2, "b": None}),
        ('{"a": null, "b": false, "c": [1]}', {"a": 1, "b": False, "c": [1]}),
    ],
)
def test_a_rows_variables_of_the_template_go_first_and_its_nulls_are_none(own, expected):
    assert template_variables({"chat_template_kwargs": own}, {"a": 1, "b": None}) == expected


def test_without_the_column_the_defaults_are_the_variables():
    defaults = {"a": 1}
    variables = template_variables({}, defaults)
    assert variables == defaults
    assert variables is not defaults


@pytest.mark.parametrize("own", ["thinking", "[1]", ["a"], 3])
def test_variables_that_are_no_object_are_refused(own):
    with pytest.raises(InputError, match="chat_template_kwargs in the dataset is .*; wanted: an object, its JSON"):
        template_variables({"chat_template_kwargs": own}, {})
