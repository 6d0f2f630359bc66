"""What a run's results are read to."""

import pytest

from tests.recipes import recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


def row(verdict, number):
    return {
        "prompt": f"q{number}",
        "completion": "a",
        "reference_answer": "r",
        "rewrite": f"w{number}",
        "verdict": verdict,
    }


@pytest.mark.parametrize(
    ("verdicts", "shown"),
    [
        (["accepted", "accepted", "accepted", "echo", "echo", "empty"], ["accepted", "accepted", "echo", "empty"]),
        ([], []),
    ],
)
def test_examples_are_accepted_rows_and_one_of_each_other_verdict(tmp_path, monkeypatch, verdicts, shown):
    rows = [row(verdict, number) for number, verdict in enumerate(verdicts)]
    monkeypatch.setattr(RunResults, "rewritten_rows", rows)
    results = RunResults(Run(recipe(tmp_path, report={"examples": 4})))
    assert [example["verdict"] for example in results.rewriting_examples] == shown
