"""The report's page: which panels it shows, in which order, and what it looks like."""

import re
from importlib.resources import files

import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tests.evaluation.lm_eval_files import write_results
from tests.recipes import recipe
from tests.reporting.parsing import Page
from trl_prune.evaluation.efficiency import Size, Work
from trl_prune.evaluation.result_files import read_results
from trl_prune.evaluation.speed import Speed, SpeedComparison
from trl_prune.evaluation.timing import Interval
from trl_prune.pipeline import REPORTED, STAGES
from trl_prune.reporting.page import available_panels, ordered_panels, side_by_side, write_pictures, write_report
from trl_prune.reporting.plots.style import ARM_COLOURS, GREEN, GREY, MODEL_COLOURS, indexed_style, model_style
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run
from trl_prune.runs.stage import Panel


TEMPLATES = files("trl_prune") / "reporting" / "templates"


def test_panels_have_names_of_their_own_and_templates():
    panels = ordered_panels(REPORTED)
    assert len({panel.name for panel in panels}) == len(panels)
    for panel in panels:
        if panel.draw is None:
            assert (TEMPLATES / f"{panel.name}.html.j2").is_file()
            assert (TEMPLATES / f"{panel.name}.md.j2").is_file()
        else:
            assert panel.caption


def test_what_is_decided_by_comes_first_and_every_panel_of_a_stage_is_there():
    panels = ordered_panels(REPORTED)
    assert [panel.name for panel in panels[:3]] == ["capabilities", "pareto_parameters", "pareto_speed"]
    assert {panel for stage in STAGES.values() for panel in stage.panels} <= set(panels)


def test_a_run_without_results_shows_nothing(tmp_path):
    assert available_panels(RunResults(Run(recipe(tmp_path))), REPORTED) == []


def test_narrow_figures_that_are_neighbours_share_a_row(tmp_path):
    figures = [("a", Figure((4, 1))), ("b", Figure((4, 1))), ("c", Figure((8, 1))), ("d", Figure((4, 1)))]
    pictures = write_pictures(figures, tmp_path)
    assert [pictures[name].is_wide for name in "abcd"] == [False, False, True, False]
    panels = [Panel(name, bool) for name in "abctd"]
    assert [[panel.name for panel in group] for group in side_by_side(panels, pictures)] == [
        ["a", "b"],
        ["c"],
        ["t"],
        ["d"],
    ]


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast_with_white(colour):
    return 1.05 / (luminance(colour) + 0.05)


@pytest.mark.parametrize("colour", [*MODEL_COLOURS.values(), *ARM_COLOURS, GREEN, GREY])
def test_what_is_drawn_is_seen_on_white(colour):
    assert contrast_with_white(colour) >= 3  # WCAG 1.4.11


def test_text_of_the_page_is_dark_and_large():
    style = (TEMPLATES / "page.html.j2").read_text()
    for colour in re.findall(r"(?<![-\w])color: (#\w+)", style):
        assert contrast_with_white(colour) >= 7  # WCAG 1.4.6
    assert min(int(size) for size in re.findall(r"font(?:-size)?: (\d+)px", style)) >= 14
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in style
    assert "http" not in style
    assert "@import" not in style


def test_models_differ_without_colours(tmp_path):
    values = {f"arm{number}": {"data": "references"} for number in range(6)}
    results = RunResults(Run(recipe(tmp_path, recover=values)))
    styles = [model_style(results, name) for name in results.run.recipe.models]
    assert len({style.hatch for style in styles}) == len({style.marker for style in styles}) == len(styles)
    assert len({indexed_style(index) for index in range(100)}) == 100


SIZES = {"dense": Size(134_500_000, 3.04e8), "pruned": Size(113_300_000, 2.5e8)}
WORK = {"dense": Work(2.5e8, 134_515_584, 11_520.0), "pruned": Work(2e8, 113_275_008, 9_216.0)}
# Of 40 items, how many each model answers: of given answers, and of answers that are generated.
RIGHT = {"dense": (36, 30), "pruned": (28, 4), "sft": (32, 16)}


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """A run with stored scores, far above chance, of both kinds of tasks, and a speed."""
    results, models = RunResults(Run(recipe(tmp_path))), {}
    for name, (chosen, written) in RIGHT.items():
        items = {"facts": [1] * chosen + [0] * (40 - chosen), "sums": [1] * written + [0] * (40 - written)}
        path = write_results(tmp_path / name, items, kinds={"sums": "generate_until"}, chances={"facts": 0.25})
        models[name] = read_results(path, name)
    gain, speed = (
        Interval(1.2, 1.17, 1.22, 8),
        Speed(Interval(512.0, 500.0, 520.0), Interval(25.0, 24.0, 26.0), 8, None),
    )
    values = {
        "model_results": models,
        "sizes": SIZES,
        "work": WORK,
        "speed": SpeedComparison(speed, speed, gain, gain),
        "forgetting": {},
        "fidelity": {},
        "answers": {},
    }
    for name, value in values.items():
        monkeypatch.setattr(RunResults, name, value)
    results.folder.path.mkdir(parents=True, exist_ok=True)
    results.folder.note(dtype="float32")
    return results


def test_a_page_has_a_picture_for_each_figure_and_says_each_thing_once(scored, tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    text = write_report(scored, REPORTED, folder)
    page = Page(text["report.html"])
    figures = ["capabilities", "pareto_parameters", "pareto_speed", "recovery", "size_and_speed", "tasks"]
    assert sorted(path.stem for path in folder.glob("*.png")) == figures
    assert len(page.addresses) == len(figures)
    assert page.is_self_contained
    groups = [table for table in page.tables if "recovery %" in table[0]]
    assert [table[0][0] for table in groups] == ["model"] * 3, "all tasks, multiple choice, generation: once each"
    assert groups[0][1][2] == "100.0 ± 0.0"
    assert not re.search(r"\bnan\b", text["report.md"])
    assert text["report.md"].count("![") == len(figures)
