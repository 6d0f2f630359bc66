"""Figures and tables of selections with clusters, with a single one, and without any."""

import pytest

from tests.data.selection.test_summary import case_of_one_cluster, case_with_clusters, case_without_clusters
from tests.recipes import recipe
from trl_prune.data.selection.summary import pool_table, selection_summary
from trl_prune.reporting.page import available_panels, write_report
from trl_prune.reporting.plots.selection import budget_by_degradation, cluster_map
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run
from trl_prune.stages.select import STAGE


NOT_FIRM = "no number of clusters is found again in held-out rows; 3 is the strongest"


@pytest.fixture
def results_of(tmp_path, monkeypatch):
    def build(case):
        monkeypatch.setattr(RunResults, "selection", selection_summary(*case))
        monkeypatch.setattr(RunResults, "selection_pool", pool_table(case[0]).to_dict())
        return RunResults(Run(recipe(tmp_path)))

    return build


def widths(axes):
    """Return the bars' widths by label."""
    return {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}


@pytest.mark.parametrize(
    ("case", "names"),
    [
        (case_with_clusters, ["budget_by_degradation", "cluster_map", "selection_table"]),
        (case_of_one_cluster, ["budget_by_degradation", "selection_table"]),
        (case_without_clusters, ["selection_table"]),
    ],
)
def test_the_report_shows_what_a_selection_has(case, names, results_of, tmp_path):
    results = results_of(case())
    assert [panel.name for panel in available_panels(results, [STAGE])] == names
    pages = write_report(results, [STAGE], tmp_path)
    for page in pages.values():
        assert "Selected rows" in page
        assert ("What pruning broke" in page) == bool(results.selection["clusters"])
        assert "is the strongest" not in page
    assert {path.stem for path in tmp_path.glob("*.png")} == set(names) - {"selection_table"}


def test_tables_show_budgets_and_chosen_rows_by_falling_degradation(results_of, tmp_path):
    results = results_of(case_with_clusters({2: 0.3, 3: 0.6}))
    pages = write_report(results, [STAGE], tmp_path)
    rows = [line.split(" | ") for line in pages["report.md"].splitlines() if "phrase " in line]
    assert [row[:5] for row in rows] == [
        ["| 1", "4", "0.3000", "4", "3"],
        ["| 0", "5", "0.1000", "1", "2"],
        ["| 2", "1", "", "0", "0"],
    ]
    html = "".join(pages["report.html"].split())
    assert '<td>1</td><tdclass="n">4</td><tdclass="n">0.3000</td><tdclass="n">4</td><tdclass="n">3</td>' in html
    assert all(NOT_FIRM in page for page in pages.values())


def test_budgets_are_drawn_beside_the_shares_of_all_rows(results_of):
    results = results_of(case_with_clusters(consistency="off"))
    left, right = budget_by_degradation(results).axes
    assert [bar.get_width() for bar in left.patches][:2] == [pytest.approx(0.3), pytest.approx(0.1)]
    assert widths(right) == {"of all rows": [40, 50, 10], "of the budget": [80, 20, 0]}


def test_chosen_rows_are_drawn_where_they_differ_from_the_budget(results_of):
    right = budget_by_degradation(results_of(case_with_clusters())).axes[1]
    assert widths(right) == {
        "of all rows": [40, 50, 10],
        "of the budget": [80, 20, 0],
        "of the chosen rows": [60, 40, 0],
    }
    right = budget_by_degradation(results_of(case_with_clusters(methods=("longest", "paser")))).axes[1]
    # the longest answers are the last of the ten
    assert widths(right) == {"of all rows": [40, 50, 10], "of the chosen rows": [80, 0, 20]}


def test_the_map_marks_the_chosen_rows(results_of):
    results = results_of(case_with_clusters())
    points = cluster_map(results).axes[0].collections
    assert [len(part.get_offsets()) for part in points] == [5, 4, 1, 5]
    chosen = results.selection_pool["selected"]
    assert points[-1].get_offsets().tolist() == [[place, -place] for place in range(10) if chosen[place]]
