import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import maybe_convert_to_chatml

from trl_prune.data.normal_rows import RowFault, normal_row


USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CONVERSATION = [USER, ANSWER]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": None}}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": [USER], "completion": [ANSWER], "answer": [1, "x"]},
        {"messages": CONVERSATION, "tools": None},
        {"messages": [USER]},
        {"messages": [{"role": "system", "content": "Be brief."}]},
        {"messages": [ANSWER]},
        {"text": "Hi"},
        {"prompt": "", "completion": ""},
    ],
)
def test_a_row_in_one_of_the_formats_stays_as_it_is(row):
    assert normal_row(row) == row


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": CONVERSATION}, {"messages": CONVERSATION}),
        ({"conversations": CONVERSATION, "messages": None}, {"messages": CONVERSATION}),
        ({"conversations": [USER], "messages": CONVERSATION}, {"messages": CONVERSATION}),
        ({"messages": CONVERSATION, "text": "as text"}, {"messages": CONVERSATION}),
        ({"messages": CONVERSATION, "prompt": "a note", "id": 1}, {"messages": CONVERSATION, "id": 1}),
        ({"prompt": "a", "completion": "b", "messages": CONVERSATION}, {"prompt": "a", "completion": "b"}),
        ({"prompt": None, "completion": None, "text": "a"}, {"text": "a"}),
        ({"prompt": "Hi", "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": [USER], "completion": "Hello"}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"prompt": [], "completion": [ANSWER]}, {"messages": [ANSWER]}),
        ({"messages": [USER, ANSWER | {"tool_calls": None, "name": None}]}, {"messages": CONVERSATION}),
    ],
)
def test_other_spellings_become_one_of_the_formats(row, expected):
    assert normal_row(row) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "Hi"}], "Hi"),
        ([{"type": "text", "text": "Hi"}, {"type": "text", "text": " you", "image": None}], "Hi you"),
        (["Hi"], "Hi"),
        ([], ""),
    ],
)
def test_parts_of_text_become_one_text(content, expected):
    assert normal_row({"messages": [{"role": "user", "content": content}]})["messages"][0]["content"] == expected


def test_a_tool_call_needs_no_content_and_its_arguments_stay_as_they_stand():
    row = normal_row({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]})
    assert row["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize("column", ["conversations", "messages", "prompt"])
def test_sharegpt_keys_become_what_trl_makes_of_them(column):
    row = {column: [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}], "completion": "Bye"}
    row = row if column == "prompt" else {column: row[column]}
    expected = maybe_convert_to_chatml({name: _copied(value) for name, value in row.items()})
    if column == "prompt":
        expected["completion"] = [{"role": "assistant", "content": "Bye"}]
    assert normal_row(row) == expected


def _copied(value):
    return [dict(message) for message in value] if isinstance(value, list) else value


def test_sharegpt_roles_become_those_that_templates_know():
    turns = [("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello")]
    found = normal_row({"conversations": [{"from": role, "value": text} for role, text in turns]})
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (3, "the row is 3; wanted: an object with the columns prompt"),
        ({}, "the row has the columns none; wanted: prompt"),
        ({"question": "a"}, "the row has the columns question; wanted: prompt"),
        ({"two\nlines": "a", "b": 1}, "the row has the columns two lines, b; wanted: prompt"),
        ({"text": None}, "column text is null; wanted: text"),
        ({"text": 5}, "column text is 5; wanted: text"),
        ({"text": "\ud800"}, "column text is no valid Unicode"),
        ({"prompt": None, "completion": "a"}, "column prompt is null; wanted: text or a list"),
        ({"prompt": "a", "completion": None}, "column completion is null; wanted: text or a list"),
        ({"prompt": "a"}, "column completion is missing"),
        ({"prompt": "a note", "messages": None}, "column messages is null; wanted: a list of one message or more"),
        ({"prompt": "a", "completion": []}, r"column completion is \[\]"),
        ({"messages": []}, r"column messages is \[\]; wanted: a list of one message or more"),
        ({"messages": "Hi"}, "column messages is 'Hi'"),
        ({"messages": ["Hi"]}, r"column messages\[0\] is 'Hi'; wanted: a message with role and content"),
        ({"messages": [USER, {"content": "a"}]}, r"column messages\[1\].role is null; wanted: the name of a role"),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            r"column messages\[1\].content is null; wanted: text",
        ),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, r"column messages\[0\].content is {'a': 1}"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "completion": "a"},
            r"column prompt\[0\].content\[0\] is a part of the type 'image'; wanted: parts of the type 'text'",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named_by_its_column(row, sentence):
    with pytest.raises(RowFault, match=sentence) as error:
        normal_row(row)
    assert "\n" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["system", "user", "assistant", "tool"]) | JSON,
        "content": st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()})) | JSON,
        "from": st.sampled_from(["human", "gpt"]) | JSON,
        "value": JSON,
        "tool_calls": JSON,
    },
)
CONVERSATIONS = st.lists(MESSAGE, max_size=4) | JSON
ROW = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text() | CONVERSATIONS,
        "completion": st.text() | CONVERSATIONS,
        "messages": CONVERSATIONS,
        "conversations": CONVERSATIONS,
        "text": st.text() | JSON,
        "answer": JSON,
    },
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(ROW | JSON)
def test_any_row_is_normal_or_at_fault_and_a_normal_one_stays(row):
    _check_normal_or_fault(row)


@pytest.mark.slow(minutes=1)
@settings(max_examples=2700, deadline=None, derandomize=True)
@given(ROW | JSON)
def test_any_of_thousands_of_rows_is_normal_or_at_fault(row):
    _check_normal_or_fault(row)


def _check_normal_or_fault(row):
    try:
        normal = normal_row(row)
    except RowFault:
        return
    assert normal_row(normal) == normal
    assert {"prompt", "completion"} <= set(normal) or ("messages" in normal) != ("text" in normal)
    for message in [*_messages(normal.get("prompt")), *_messages(normal.get("messages"))]:
        assert isinstance(message["role"], str)
        assert isinstance(message["content"], str)


def _messages(value):
    return value if isinstance(value, list) else []
