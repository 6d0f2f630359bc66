"""The texts of rows in each of TRL's formats."""

import pytest
from datasets import Dataset

from trl_prune.data.selection.texts import answer_text, check_instruction_column, has_answer, instruction_text
from trl_prune.errors import InputError


USER, ASSISTANT = {"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("row", "instruction", "answer"),
    [
        ({"prompt": "Add 1 and 2.", "completion": "3"}, "Add 1 and 2.", "3"),
        ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, "Add 1 and 2.", "3"),
        ({"messages": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]}, "Add 1 and 2.\nAdd 1 and 2.", "3\n3"),
        ({"text": "One two."}, "One two.", ""),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "Add 1 and 2.", ""),
    ],
)
def test_the_instruction_is_what_the_user_says(row, instruction, answer):
    assert instruction_text(row) == instruction
    assert answer_text(row) == answer


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "x", "completion": " "}, False),
        ({"prompt": [USER], "completion": [ASSISTANT]}, True),
        ({"messages": [USER, ASSISTANT]}, True),
        ({"messages": [USER, ASSISTANT, USER]}, True),
        ({"messages": [SYSTEM, USER]}, False),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}]}, True),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, False),
        ({"text": "One two."}, True),
        ({"text": " "}, False),
    ],
)
def test_an_answer_is_what_can_be_learned(row, expected):
    assert has_answer(row) is expected


def test_a_named_column_is_the_instruction():
    assert instruction_text({"prompt": "x", "completion": "y", "topic": "sums"}, "topic") == "sums"
    assert instruction_text({"prompt": "x", "completion": "y", "topic": None}, "topic") == ""


@pytest.mark.parametrize(
    ("columns", "column", "sentence"),
    [
        (
            {"prompt": ["x"], "completion": ["y"]},
            "instruction",
            "is 'instruction', and the data has the columns prompt",
        ),
        ({"prompt": [[USER]], "completion": [[ASSISTANT]]}, "prompt", "holds a list; wanted: text"),
        ({"prompt": [], "completion": []}, None, "the data has no rows to select from"),
        ({"instruction": ["x"], "output": ["y"]}, None, "the data has the columns instruction, output; wanted"),
    ],
)
def test_a_dataset_without_instructions_is_refused(columns, column, sentence):
    with pytest.raises(InputError, match=sentence):
        check_instruction_column(Dataset.from_dict(columns), column, "the data")
