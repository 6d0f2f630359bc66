"""The shipped types quote the method's prompts; a user's types are checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.acceptance import CHECKS
from trl_prune.data.rewriting.answer_types import (
    NONE,
    all_answer_types,
    check_answer_type,
    filled,
    shipped_answer_types,
    with_task,
)
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS
from trl_prune.errors import InputError


USER = {"role": "user", "content": "2 + 3?"}


def test_the_general_request_is_the_methods():
    messages = shipped_answer_types()["general"].request([USER], "5")
    assert messages == [
        {
            "role": "system",
            "content": "Below are an instruction that describes a task along with a reference answer. Using the "
            "reference answer as a guide, write your own response.",
        },
        {
            "role": "user",
            "content": "### Instruction:\n2 + 3?\n\n### Reference Answer:\n5\n\n### Response:\n",
        },
    ]


def test_the_math_request_is_the_methods():
    math = shipped_answer_types()["math"]
    system, user = math.request([USER], "#### 5")
    assert system["content"] == (
        "You are an expert in math. Below are a math question and its reference answer. Refer to the reference answer "
        "and write a response that appropriately answers the question."
    )
    assert user["content"] == "2 + 3?\n\n#### 5"
    assert math.prefill == "Great! Let's think step by step. "
    assert math.train.applied([USER])[0]["content"] == (
        "You are an expert in math. Below is a math question. "
        "Write a response that appropriately answers the question."
    )
    assert math.infer.applied([USER])[0]["content"].endswith(
        "Your final answer should be an integer at the end of your response, formatted as: The answer is {answer}."
    )


def test_the_refer_request_differs_from_the_general_one_in_its_verb():
    general, refer = (shipped_answer_types()[name] for name in ("general", "refer"))
    verb = "Using the reference answer as a guide, write your own response."
    assert refer.system == general.system.replace(verb, "Refer to the reference answer and write your own response.")
    assert refer.user == general.user


@pytest.mark.parametrize("name", [name for name in shipped_answer_types() if name != NONE])
def test_every_type_asks_with_the_reference_and_names_what_exists(name):
    answer_type = shipped_answer_types()[name]
    text = "".join(message["content"] for message in answer_type.request([USER], "the reference"))
    assert "2 + 3?" in text
    assert "the reference" in text
    assert answer_type.extractor is None or answer_type.extractor in EXTRACTORS
    assert set(answer_type.checks) <= set(CHECKS)
    assert ("same_answer" in answer_type.checks) == (answer_type.extractor is not None)


def test_training_prompts_never_show_the_reference():
    for answer_type in shipped_answer_types().values():
        for task in filter(None, (answer_type and answer_type.train, answer_type and answer_type.infer)):
            assert "reference" not in "".join(message["content"] for message in task.applied([USER])).lower()


@given(st.text(), st.text())
def test_braces_of_the_texts_are_text(instruction, reference):
    assert filled("{instruction}|{reference}", instruction=instruction, reference=reference) == (
        f"{instruction}|{reference}"
    )
    assert filled('{"a": {instruction}}', instruction=instruction) == f'{{"a": {instruction}}}'


def test_a_rows_own_system_prompt_follows_the_types():
    messages = [{"role": "system", "content": "Be brief."}, USER]
    changed = with_task(messages, "Rewrite.", str.upper)
    assert changed[0] == {"role": "system", "content": "Rewrite.\n\nBe brief."}
    assert with_task([USER], "", str) == [USER]


def test_users_add_and_replace_types():
    added = {
        "poem": {"user": "{instruction} / {reference}", "checks": ["agreement"]},
        "open": {"user": "{reference}{instruction}"},
    }
    types = all_answer_types(added, "rewrite.answer_types")
    assert types["poem"].request([USER], "Roses") == [{"role": "user", "content": "2 + 3? / Roses"}]
    assert types["open"].checks == ()
    assert types["math"] == shipped_answer_types()["math"]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"user": "{instruction}"}, "rewrite.answer_types.mine.user lacks {reference}"),
        ({"user": "no placeholder"}, "lacks {instruction} and {reference}"),
        ({"user": "{instruction}{reference}", "extractor": "maths"}, "mine.extractor Input should be 'number'"),
        ({"user": "{instruction}{reference}", "checks": ["same"]}, "given: 'same'"),
        ({"user": "{instruction}{reference}", "systm": "x"}, "mine.systm Extra inputs"),
        ({"system": "x"}, "mine.user Field required"),
        ("x", "rewrite.answer_types.mine Input should be"),
        (None, "rewrite.answer_types.mine Input should be"),
        (
            {"user": "{instruction}{reference}", "checks": ["same_answer"]},
            "mine 'same_answer' and 'extractor' go together",
        ),
    ],
)
def test_a_wrong_entry_is_named(entry, sentence):
    with pytest.raises(InputError) as error:
        all_answer_types({"mine": entry}, "rewrite.answer_types")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_type_cannot_be_named_as_the_choice_between_types():
    with pytest.raises(InputError, match="has a type named 'auto'"):
        all_answer_types({"auto": {"user": "{instruction}{reference}"}}, "rewrite.answer_types")


def test_an_unknown_type_is_named_with_the_likely_one():
    with pytest.raises(InputError, match="rewrite.answer_type is 'maths'.*allowed: general.*did you mean 'math'"):
        check_answer_type("maths", shipped_answer_types(), "rewrite.answer_type")
