"""The pages in headless Chromium: no wider than a phone, readable, and without the network."""

import pytest

from tests.recipes import recipe_values
from tests.reporting.browser import browser, measure
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.across_runs import report_runs


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of one run and across runs; answers and names are long, and hold markup."""
    browser()
    folder = tmp_path_factory.mktemp("browser")
    values = recipe_values(folder)
    values["evaluate"]["questions"] = ["Why " + "very " * 40 + "long?", "x" * 300, "<img src=http://x.example/a.png>"]
    run = run_recipe(parse_recipe(values, "test"))
    return {"run": run.folder.path / "report" / "report.html", "runs": report_runs([run.folder.path]).page}


@pytest.mark.parametrize("name", ["run", "runs"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_its_screen(pages, name, width):
    figures = measure(pages[name], width)
    assert figures["width"] <= width
    assert figures["text"] >= 14
    assert min(figures["pictures"], default=1) > 0
    assert figures["loaded"] == []
