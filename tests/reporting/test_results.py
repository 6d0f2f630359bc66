"""What a run's results are read to."""

import pytest

from tests.recipes import recipe
from trl_prune.data.rewriting.provenance import AnswerRecord
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
