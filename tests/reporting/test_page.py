"""The report's text, and which panels it shows."""

from importlib.resources import files

from tests.recipes import recipe
from trl_prune.evaluation.recovery import Estimate
from trl_prune.pipeline import STAGES
from trl_prune.reporting.page import available_panels, cell, percent, plain
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


def test_figures_as_text():
    assert percent(Estimate(0.91234, 0.0123)) == "91.2 ± 1.2"
    assert plain(Estimate(0.5, 0.01)) == "0.500 ± 0.010"
    assert percent(None) == plain(None) == ""
    assert cell("a\n| b") == "a \\| b"


def test_panels_have_names_of_their_own_and_templates():
    panels = [panel for stage in STAGES.values() for panel in stage.panels]
    assert len({panel.name for panel in panels}) == len(panels)
    templates = files("trl_prune") / "reporting" / "templates"
    for panel in panels:
        if panel.draw is None:
            assert (templates / f"{panel.name}.html.j2").is_file()
            assert (templates / f"{panel.name}.md.j2").is_file()
        else:
            assert panel.caption


def test_a_run_without_results_shows_nothing(tmp_path):
    assert available_panels(RunResults(Run(recipe(tmp_path))), tuple(STAGES.values())) == []
