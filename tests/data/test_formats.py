import pytest

from trl_prune.data.formats import format_of, prompt_and_answer, row_text
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


@pytest.mark.parametrize("row", [CONVERSATIONAL_ROW, MESSAGES_ROW])
def test_messages_go_through_the_chat_template(row, tokenizer):
    expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert row_text(row, tokenizer) == expected
    assert row_text(TEXT_ROW, tokenizer) == "HiHello"
    assert row_text({"text": "plain"}, tokenizer) == "plain"
