import json

import pytest

from tests.recipes import recipe_values
from tests.reporting.parsing import Page
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe


@pytest.mark.slow
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
    html = Page((run.folder.path / "report" / "report.html").read_text())
    assert html.is_self_contained
    cost = next(table for table in html.tables if table[0][:2] == ["arm", "tokens trained"])
    assert cost[1][:2] == ["sft", f"{run.folder.require('recover', 'sft').metrics['tokens']:,}"]
    minutes = next(table for table in html.tables if table[0] == ["stage", "minutes"])
    assert {"score", "prune", "recover sft", "evaluate sft"} <= {row[0] for row in minutes}


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
    values |= {"recover": {}, "report": {"examples": 50, "title": "<script>a title</script>"}}
    values["evaluate"]["questions"] = ["<script>a question</script>"]
    run = run_recipe(parse_recipe(values, "test"))
    page = (run.folder.path / "report" / "report.html").read_text()
    for text in (page, (run.folder.path / "report" / "report.md").read_text()):
        assert "<script>" not in text
        assert "&lt;script>a title" in text.replace("&gt;", ">")
        assert str(tmp_path) not in text
    assert Page(page).is_self_contained
    assert "&lt;script&gt;" in page
