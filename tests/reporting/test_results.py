"""What a run's results are read to."""

from types import SimpleNamespace

import pytest

from tests.recipes import recipe
from trl_prune.data.rewriting.provenance import AnswerRecord
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


def record(reason, number):
    return AnswerRecord(number, 1, "reference", reason, "open", "column", reference="r", rewrite=f"w{number}")


@pytest.mark.parametrize(
    ("reasons", "shown"),
    [
        (["accepted", "accepted", "accepted", "echo", "echo", "empty"], ["accepted", "accepted", "echo", "empty"]),
        ([], []),
    ],
)
def test_examples_are_accepted_answers_and_one_of_each_other_reason(tmp_path, monkeypatch, reasons, shown):
    records = [record(reason, number) for number, reason in enumerate(reasons)]
    monkeypatch.setattr(RunResults, "answer_records", records)
    results = RunResults(Run(recipe(tmp_path, report={"examples": 4})))
    examples = results.rewriting_examples
    assert [example["reason"] for example in examples] == shown
    assert all(example["prompt"] in str(results.run.dataset[:]) for example in examples)


def scored(results, monkeypatch, arms, **scores):
    capabilities = [{"capabilities": names} if names else {} for names in arms]
    found = {str(number): SimpleNamespace(metrics=metrics) for number, metrics in enumerate(capabilities)}
    monkeypatch.setattr(RunResults, "arms", found)
    monkeypatch.setattr(RunResults, "scores", {"dense": scores})
    return results.groups


def test_groups_follow_the_capabilities_of_the_rows_that_arms_trained_on(tmp_path, monkeypatch):
    results = RunResults(Run(recipe(tmp_path)))
    right = [1.0, 0.0] * 20
    scores = {name: TaskScore(name, "acc", right, 0.0, name, "choice") for name in ("facts", "logic", "grammar")}
    scores["guessed"] = TaskScore("guessed", "acc", right, 0.5, "facts", "choice")
    groups = scored(results, monkeypatch, [["facts"], ["grammar", "other"], None], **scores)
    assert groups["capabilities with training rows"] == ["facts", "grammar"]
    assert groups["capabilities without training rows"] == ["logic"]
    assert groups["all tasks"] == list(scores)
    assert groups["multiple choice"] == groups["all tasks that say something"] == ["facts", "logic", "grammar"]


def test_rows_that_name_no_capability_make_no_such_groups(tmp_path, monkeypatch):
    results = RunResults(Run(recipe(tmp_path)))
    score = TaskScore("facts", "acc", [1.0, 0.0] * 20, 0.0, "facts", "choice")
    assert list(scored(results, monkeypatch, [None], facts=score)) == ["all tasks", "multiple choice"]
