"""The comparison's tables, pages and terminal output."""

import json

import pytest

from tests.evaluation.lm_eval_files import write_results
from tests.reporting.parsing import Page
from trl_prune.evaluation.comparison import ComparedModels
from trl_prune.evaluation.result_files import read_results
from trl_prune.reporting.comparison_page import write_comparison
from trl_prune.reporting.comparison_tables import GROUP_COLUMNS, TASK_COLUMNS, group_cells, notes, p_value, task_cells
from trl_prune.reporting.console import show_comparison


@pytest.fixture
def compared(tmp_path):
    kinds, chances = {"written": "generate_until"}, {"choice": 0.25, "guessed": 0.5}
    dense = {"choice": [1] * 30 + [0] * 10, "written": [1] * 20 + [0] * 20, "guessed": [1, 0] * 20}
    model = {"choice": [0] * 10 + [1] * 21 + [0] * 9, "written": [0] * 40, "guessed": [0, 1] * 20}
    paths = [
        write_results(tmp_path / name, scores, kinds=kinds, chances=chances, sample_changes={"target": "a | b"})
        for name, scores in (("dense", dense), ("<b>model", model))
    ]
    return ComparedModels([read_results(path, path.parent.name) for path in paths])


def test_cells_are_the_figures_of_the_comparison(compared):
    (comparison,) = compared.comparisons.values()
    rows = {row[0]: dict(zip(TASK_COLUMNS, row, strict=True)) for row in task_cells(comparison)}
    assert (rows["choice"]["dense"], rows["choice"]["model"], rows["choice"]["chance"]) == ("75.0", "52.5", "25.0")
    assert rows["choice"]["difference"].startswith("-22.5 [")
    assert rows["choice"]["lost, gained"] == "10, 1"
    assert rows["written"]["p (Holm)"] == "<0.001*"
    assert (rows["guessed"]["p (Holm)"], rows["guessed"]["note"]) == ("", "at chance")
    groups = {row[0]: dict(zip(GROUP_COLUMNS, row, strict=True)) for row in group_cells(comparison)}
    assert groups["multiple choice"]["recovery %"].startswith("70.0 [")
    assert groups["multiple choice"]["above chance %"].startswith("55.0 [")
    assert groups["generation"]["recovery %"] == "0.0 [0, 0]"
    assert notes(compared) == [
        "these tasks say nothing and are left out of means, but for those of all tasks: guessed (at chance)"
    ]


def test_small_p_values_are_not_told_apart():
    assert [p_value(value) for value in (None, 0.0000001, 0.0123)] == ["", "<0.001", "0.012"]


def test_pages_and_data_are_written(compared, tmp_path):
    page = write_comparison(compared, tmp_path / "out")
    html = page.read_text()
    assert Page(html).is_self_contained
    assert "<b>model" not in html
    assert "&lt;b&gt;model keeps 70 % of multiple choice" in html
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    widths = [line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("| choice")]
    assert widths[0] == len(TASK_COLUMNS) + 1
    assert r"a \| b" in markdown
    assert "<b>" not in markdown
    values = json.loads((tmp_path / "out" / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert values["models"]["<b>model"]["tasks"][0]["lost"] == 10
    assert len(values["flips"]["<b>model"]) == 3 + 1 + 3


def test_the_terminal_shows_the_verdict_first_and_lines_that_fit(compared, capsys):
    show_comparison(compared)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("<b>model keeps 70 % of multiple choice")
    assert any(line.split()[:3] == ["choice", "75.0", "52.5"] for line in lines)


def test_the_terminal_shows_loops_below_the_table(tmp_path, capsys):
    looping = {"resps": [["ha ha ha " * 20]]}
    paths = [
        write_results(tmp_path / name, {"written": right}, kinds={"written": "generate_until"}, sample_changes=change)
        for name, right, change in (("dense", [1, 0] * 20, {}), ("model", [0] * 40, looping))
    ]
    show_comparison(ComparedModels([read_results(path, path.parent.name) for path in paths]))
    assert "written: loops: 0 → 100 %" in capsys.readouterr().out.splitlines()
