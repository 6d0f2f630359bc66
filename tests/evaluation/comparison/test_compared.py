"""Models' results side by side, as they are read from lm-eval's files."""

import pytest

from tests.evaluation.lm_eval_files import write_results
from trl_prune.errors import InputError
from trl_prune.evaluation.comparison import ComparedModels
from trl_prune.evaluation.result_files import read_results


RIGHT = [1] * 16 + [0] * 4
LESS = [0] * 6 + [1] * 10 + [0] * 2 + [1] * 2
TASKS = {"easy": [1] * 20, "choice": RIGHT, "written": RIGHT}


def results(folder, name, **scores):
    kinds = {"written": "generate_until"}
    path = write_results(folder / name, TASKS | scores, kinds=kinds, order=sorted(range(20), key=lambda n: -n))
    return read_results(path, name)


@pytest.fixture
def three(tmp_path):
    dense = read_results(write_results(tmp_path / "dense", TASKS, kinds={"written": "generate_until"}), "dense")
    pruned = results(tmp_path, "pruned", choice=[0] * 20, written=[0] * 20)
    return [dense, pruned, results(tmp_path, "sft", choice=LESS)]


def test_each_model_is_held_against_the_dense_one_on_its_items(three):
    compared = ComparedModels(three, pruned="pruned")
    assert list(compared.comparisons) == ["pruned", "sft"]
    _, choice, written = compared.comparisons["sft"].tasks
    assert (choice.lost, choice.gained, written.lost) == (6, 2, 0)
    assert compared.marks == {"easy": "at the ceiling"}
    assert compared.comparisons["sft"].groups["multiple choice"].recovery.gap_closed.value == pytest.approx(0.75)
    assert compared.comparisons["pruned"].groups["multiple choice"].recovery.gap_closed is None
    assert compared.warnings == []


def test_answers_that_changed_are_shown_with_both_models(three):
    flips = ComparedModels(three).flips("sft", examples=2)
    assert [(flip.task, flip.direction) for flip in flips] == [("choice", "lost")] * 2 + [("choice", "gained")] * 2
    assert (flips[0].question, flips[0].dense, flips[0].model) == ("Question 0?", "0", "1")


def test_another_model_may_be_the_dense_one(three):
    assert list(ComparedModels(three, dense="sft").scores) == ["sft", "dense", "pruned"]


@pytest.mark.parametrize(
    ("count", "options", "sentence"),
    [
        (3, {"dense": "other"}, r"dense is 'other', which is none of the results \(dense, pruned, sft\)"),
        (3, {"pruned": "other"}, "pruned is 'other', which is none of the results"),
        (1, {}, "results of two or more models with different names are compared, not dense"),
    ],
)
def test_names_that_no_result_has_are_refused(three, count, options, sentence):
    with pytest.raises(InputError, match=sentence):
        ComparedModels(three[:count], **options)
