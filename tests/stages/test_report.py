import json

import pytest

from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe


def test_a_report_on_two_of_the_models(tmp_path):
    values = recipe_values(tmp_path)
    values["evaluate"]["models"] = ["dense", "sft"]
    run = run_recipe(parse_recipe(values, "test"))
    page = (run.folder.path / "report" / "report.md").read_text()
    assert "| sft |" in page
    assert "gap closed" in page
    flops = run.folder.require("recover", "sft").metrics["flops"]
    for name in ("report.md", "report.html"):
        text = (run.folder.path / "report" / name).read_text()
        assert f"{flops['student']:.3g}" in text
    assert "| sft | sft | references | pruned |" in page


def test_recovery_needs_the_dense_model(tmp_path):
    values = recipe_values(tmp_path)
    values["evaluate"]["models"] = ["pruned"]
    with pytest.raises(InputError, match="evaluate.models lacks 'dense'"):
        parse_recipe(values, "test")


def test_html_in_the_data_is_escaped(tmp_path):
    values = recipe_values(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows[0]["prompt"][0]["content"] = "<script>alert(1)</script>"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values |= {"recover": {}, "report": {"examples": 50}}
    run = run_recipe(parse_recipe(values, "test"))
    page = (run.folder.path / "report" / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
