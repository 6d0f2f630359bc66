import json

import pytest

from tests.test_pipeline import recipe_values
from trl_prune.errors import InputError
from trl_prune.evaluation.recovery import Estimate
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.page import cell, examples, percent, plain


def row(verdict, number):
    return {
        "prompt": f"q{number}",
        "completion": "a",
        "reference_answer": "r",
        "rewrite": f"w{number}",
        "verdict": verdict,
    }


def test_examples_show_accepted_rows_and_one_of_each_fault():
    rows = [
        row("accepted", 0),
        row("accepted", 1),
        row("accepted", 2),
        row("echo", 3),
        row("echo", 4),
        row("empty", 5),
    ]
    told = examples(rows, 4)
    assert [example["verdict"] for example in told] == ["accepted", "accepted", "echo", "empty"]
    assert examples([], 4) == []


def test_figures_as_text():
    assert percent(Estimate(0.91234, 0.0123)) == "91.2 ± 1.2"
    assert plain(Estimate(0.5, 0.01)) == "0.500 ± 0.010"
    assert percent(None) == plain(None) == ""
    assert cell("a\n| b") == "a \\| b"


def test_a_report_on_two_of_the_models(tmp_path):
    values = recipe_values(tmp_path)
    values["evaluate"]["models"] = ["dense", "sft"]
    run = run_recipe(parse_recipe(values, "test"))
    page = (run.folder.path / "report" / "report.md").read_text()
    assert "| sft |" in page
    assert "gap closed" in page
    flops = run.folder.needed("recover", "sft").metrics["flops"]
    for name in ("report.md", "report.html"):
        told = (run.folder.path / "report" / name).read_text()
        assert f"{flops['student']:.3g}" in told
    assert "| sft | sft | references | pruned |" in page


def test_recovery_needs_the_dense_model(tmp_path):
    values = recipe_values(tmp_path)
    values["evaluate"]["models"] = ["pruned"]
    with pytest.raises(InputError, match="evaluate.models lacks 'dense'"):
        parse_recipe(values, "test")


def test_html_in_the_data_stays_text(tmp_path):
    values = recipe_values(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows[0]["prompt"][0]["content"] = "<script>alert(1)</script>"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values |= {"recover": {}, "report": {"examples": 50}}
    run = run_recipe(parse_recipe(values, "test"))
    page = (run.folder.path / "report" / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
