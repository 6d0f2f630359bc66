"""A row's answers are found in their context, and replacing one changes nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.turns import in_place_of, turns, with_answer, with_prompt


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text} | more


SYSTEM = {"role": "system", "content": "Be brief."}
CALL = assistant("", tool_calls=[{"type": "function", "function": {"name": "clock", "arguments": {}}}])
TOOL = {"role": "tool", "content": "12:00"}
DIALOGUE = [SYSTEM, user("Hi"), assistant("Hello"), user("Time?"), CALL, TOOL, assistant("Noon.")]
TEXT = {"text": "### Question:\nHi\n### Answer:\nHello\n"}


def test_every_answer_of_a_conversation_has_its_context():
    found = turns({"messages": DIALOGUE})
    assert [(turn.index, turn.answer, turn.is_last) for turn in found] == [(2, "Hello", False), (6, "Noon.", True)]
    assert [turn.messages for turn in found] == [DIALOGUE[:2], DIALOGUE[:6]]


@pytest.mark.parametrize(
    ("row", "messages", "answer"),
    [
        ({"prompt": "Hi", "completion": " Hello"}, [user("Hi")], " Hello"),
        ({"prompt": [SYSTEM, user("Hi")], "completion": [assistant("Hello")]}, [SYSTEM, user("Hi")], "Hello"),
        ({"prompt": "Hi", "completion": [assistant("Hello")]}, [user("Hi")], "Hello"),
        (TEXT, [user("### Question:\nHi\n")], "\nHello\n"),
    ],
)
def test_every_format_has_its_answer(row, messages, answer):
    (turn,) = turns(row, response_template="### Answer:")
    assert (turn.messages, turn.answer) == (messages, answer)


def test_a_prompts_own_answers_are_context_only():
    row = {"prompt": DIALOGUE[:4], "completion": DIALOGUE[4:]}
    assert [(turn.index, turn.answer) for turn in turns(row)] == [(6, "Noon.")]


@pytest.mark.parametrize(
    "row",
    [
        TEXT,
        {"messages": [user("Hi")]},
        {"messages": [assistant("Hello")]},
        {"messages": [user("Hi"), CALL]},
        {"messages": [user("Hi"), assistant(None)]},
        {"messages": [user([{"type": "image"}]), assistant("A cat")]},
        {"messages": []},
        {"messages": None},
        {"prompt": "Hi", "completion": "  "},
        {"prompt": "Hi", "completion": None},
        {"prompt": None, "completion": "Hello"},
        {},
    ],
)
def test_rows_without_an_answer_to_rewrite(row):
    assert turns(row) == []


def test_text_without_the_template_has_no_answer():
    assert turns({"text": "Hello"}, response_template="### Answer:") == []


@pytest.mark.parametrize(
    "row",
    [
        {"messages": DIALOGUE},
        {"prompt": DIALOGUE[:4], "completion": DIALOGUE[4:], "id": 3},
        {"prompt": "Time?", "completion": " Noon.\n"},
        TEXT,
    ],
)
def test_replacing_an_answer_by_itself_changes_nothing(row):
    for turn in turns(row, "### Answer:"):
        assert with_answer(row, turn.index, turn.answer.strip(), "### Answer:") == row


@pytest.mark.parametrize("row", [{"messages": DIALOGUE}, {"prompt": DIALOGUE[:4], "completion": DIALOGUE[4:]}])
def test_replacing_an_answer_changes_it_alone(row):
    last = turns(row)[-1]
    changed = with_answer(row, last.index, "Twelve.")
    assert turns(changed)[-1].answer == "Twelve."
    assert turns(changed)[-1].messages == last.messages
    assert with_answer(changed, last.index, "Noon.") == row


@given(st.text().filter(str.strip), st.text().filter(str.strip))
def test_the_space_around_an_answer_stays(old, new):
    assert in_place_of(old, new).strip() == new.strip()
    assert in_place_of(in_place_of(old, new), old) == old


def test_the_last_answers_prompt_can_change():
    def shout(messages):
        return [message | {"content": str(message["content"]).upper()} for message in messages]

    changed = with_prompt({"messages": DIALOGUE[:3]}, shout)
    assert changed["messages"] == [SYSTEM | {"content": "BE BRIEF."}, user("HI"), assistant("Hello")]
    assert with_prompt({"prompt": "Hi", "completion": "x"}, lambda m: [SYSTEM, *m])["prompt"] == "Be brief.\n\nHi"
    assert with_prompt({"prompt": [user("Hi")], "completion": "x"}, shout)["prompt"] == [user("HI")]
