"""Results under other conditions are refused or warned of, by what makes the difference."""

from dataclasses import replace
from pathlib import Path

import pytest

from trl_prune.errors import InputError
from trl_prune.evaluation.comparison.conditions import check_conditions
from trl_prune.evaluation.result_files import Conditions, ItemText, ModelResults


USUAL = Conditions(version=1.0, num_fewshot=5, dtype="float32", batch_size="16", lm_eval="0.4.13")


def results(name="A", prompts=("p", "q"), **changes):
    conditions = {task: replace(USUAL, **changes) for task in ("t", "u")}
    texts = {"t": {str(number): ItemText("", "", "", prompt) for number, prompt in enumerate(prompts)}}
    return ModelResults(name, Path(name), {}, conditions, texts)


def test_equal_conditions_have_no_warning():
    assert check_conditions([results(), results("B"), results("C")]) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_fewshot": 0}, r"the shots differs between the results \(A: 5, B: 0\), so that the results cannot"),
        ({"version": 2.0}, r"the task version differs between the results \(A: 1.0, B: 2.0\)"),
        ({"prompts": ("p", "other")}, r"the same documents have other prompts in B than in A: t \(1 of 2 items\)"),
    ],
)
def test_another_task_is_refused_unless_allowed(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        check_conditions([results(), results("B", **changes)])
    assert len(check_conditions([results(), results("B", **changes)], allow_differences=True)) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chat_template": "ab" * 40}, "the chat template differs between the results (A: none, B: abab"),
        ({"limit": 10}, "the limit differs between the results (A: none, B: 10)"),
        ({"dtype": "bfloat16"}, "the dtype differs between the results (A: float32, B: bfloat16)"),
        ({"batch_size": "auto"}, "B has batch size `auto`"),
    ],
)
def test_other_differences_are_warned_of(changes, sentence):
    warnings = check_conditions([results(), results("B", **changes)])
    assert any(warning.startswith(sentence) for warning in warnings)


def test_what_a_file_does_not_say_differs_from_nothing():
    assert check_conditions([results(), results("B", dtype=None, num_fewshot=None)]) == []


def test_a_difference_of_some_tasks_names_them():
    other = results("B")
    other.conditions["u"] = replace(USUAL, generation="{'do_sample': True}")
    first = results()
    first.conditions["u"] = replace(USUAL, generation="{'do_sample': False}")
    (warning,) = check_conditions([first, other])
    assert warning.startswith("the generation settings of u differs between the results")
