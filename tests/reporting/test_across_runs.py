"""Several runs on one page."""

import json
import shutil
from pathlib import Path

import pytest

from tests.recipes import recipe_values
from tests.reporting.parsing import Page
from trl_prune import report
from trl_prune.checkpoints import write_json
from trl_prune.cli import main
from trl_prune.errors import InputError
from trl_prune.evaluation.recovery import Estimate, TaskScore
from trl_prune.evaluation.timing import Interval
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting import across_runs
from trl_prune.reporting.across_runs import all_points, check_runs, open_run, report_runs, run_names
from trl_prune.reporting.model_points import ModelPoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run with one arm, and a copy of it: two runs of one dense model."""
    folder = tmp_path_factory.mktemp("across")
    values = recipe_values(folder, "one/run")
    values["prune"]["repairs"] = {}
    values["recover"] = {"sft": values["recover"]["sft"]}
    values["recover"]["sft"]["args"] |= {"max_steps": 1}
    values["evaluate"]["questions"] = []
    del values["rewrite"]
    run_recipe(parse_recipe(values, "test"), ["evaluate"])
    folders = [folder / name / "run" for name in ("one", "two")]
    shutil.copytree(*folders)
    recipe = (folders[1] / "recipe.yaml").read_text()
    (folders[1] / "recipe.yaml").write_text(recipe.replace("one/run", "two/run"))
    return folders


def test_a_page_has_a_verdict_for_each_run_and_a_row_for_each_model(folders, tmp_path):
    made = report_runs(folders, tmp_path / "page")
    assert list(made.verdicts) == ["one/run", "two/run"]
    assert all(sentence.startswith("sft ") for sentence in made.verdicts.values())
    text = made.page.read_text()
    page = Page(text)
    models, costs = page.tables
    assert [row[:3] for row in models[1:]] == [
        ["1", "", "dense"],
        ["2", "one/run", "pruned"],
        ["3", "one/run", "sft"],
        ["4", "two/run", "pruned"],
        ["5", "two/run", "sft"],
    ]
    assert [row[:2] for row in costs[1:]] == [
        ["one/run", "sft"],
        ["one/run", "all stages"],
        ["two/run", "sft"],
        ["two/run", "all stages"],
    ]
    assert page.is_self_contained
    markdown = (tmp_path / "page" / "report.md").read_text()
    assert f"**two/run**: {made.verdicts['two/run']}" in markdown.replace("\\", "")
    assert len(json.loads((tmp_path / "page" / "models.json").read_text())["models"]) == 5


def test_the_command_line_reports_folders_and_recipes_alike(folders, tmp_path, capsys):
    recipe = folders[1] / "recipe.yaml"
    assert main(["report", str(folders[0]), str(recipe), "--output", str(tmp_path / "page")]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("one/run: sft ")
    assert output[-1] == f"report: {tmp_path / 'page' / 'report.html'}"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{one}", "{one}"], "is named more than once"),
        (["{one}", "{empty}"], "is no run folder of trl-prune: it has no run.json and recipe.yaml"),
        (["{one}", "{empty}/no.yaml"], "no.yaml cannot be read: No such file"),
        (["{one}", "{two}", "seed=1"], "overrides is for a recipe's report"),
        (["{one}", "{two}", "--dry-run"], "--dry-run is for a recipe's report"),
        (["{one}", "{two}", "--output", "{two}"], "is a run folder; name another one with --output"),
        (["{one}/recipe.yaml", "--output", "{empty}"], "--output is for folders; what a recipe makes goes into"),
    ],
)
def test_a_mistake_is_one_sentence(folders, tmp_path, capsys, words, sentence):
    places = {"one": folders[0], "two": folders[1], "empty": tmp_path}
    assert main(["report", *(word.format(**places) for word in words)]) == 2
    assert sentence in capsys.readouterr().err


class Results:
    """A run whose dense model has scores on one task."""

    def __init__(self, model="dense", task="task", hashes=("a", "b")):
        self.scores = {"dense": {task: TaskScore(task, "acc", [1.0] * len(hashes), doc_hashes=list(hashes))}}
        self.model = model


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (Results("other"), "one and two have different dense models \\(dense and other\\)"),
        (Results(task="tusk"), "were evaluated on different tasks, such as task"),
        (Results(hashes=("a", "c")), "were evaluated on different items of task"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(monkeypatch, other, sentence):
    monkeypatch.setattr(across_runs, "_dense_hash", lambda results: results.model)
    monkeypatch.setattr(across_runs, "dense_model", lambda results: results.model)
    with pytest.raises(InputError, match=sentence):
        check_runs({"one": Results(), "two": other})


def test_folders_may_have_names_that_are_numbers_or_hold_an_equals_sign(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("24", "lr=1"):
        shutil.copytree(folders[0], tmp_path / name)
    assert main(["report", "24", "lr=1", "--output", "page"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["24", "lr=1", "report"]


def test_the_function_takes_recipes_and_the_home_folder(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(folders[0].parents[1]))
    assert report(["~/one/run/recipe.yaml", "~/two/run"], tmp_path / "page") == tmp_path / "page" / "report.html"
    with pytest.raises(InputError, match="a report on runs was given none"):
        report([])


def test_an_unfinished_run_is_refused(folders, tmp_path):
    write_json(tmp_path / "run.json", {"model": "dense"})
    (tmp_path / "recipe.yaml").write_text((folders[0] / "recipe.yaml").read_text())
    with pytest.raises(InputError, match="has no scores of its dense model"):
        open_run(tmp_path)


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    assert run_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert run_names([tmp_path / "a" / "run", Path(tmp_path / "b" / "run")]) == ["a/run", "b/run"]


def test_a_missing_figure_is_explained():
    def point(model, speed, recovery):
        return ModelPoint("one", model, 1, speed, recovery)

    kept, speed = {"generation": Estimate(1, 0)}, Interval(2.0, 1.0, 3.0)
    models = ("dense", "pruned")
    assert across_runs._missing([point(model, speed, kept) for model in models]) == []
    assert across_runs._missing([point(model, None, kept) for model in models]) == [
        "No figure of recovery against speed: no two models were timed (`evaluate.speed_seconds`)."
    ]
    (sentence,) = across_runs._missing([point(model, speed, {}) for model in models])
    assert sentence.startswith("No figure of quality against cost: no two models have tasks of multiple choice or gen")


def test_gains_measured_at_different_times_have_one_dense_speed(monkeypatch):
    def point(run, model, speed):
        return ModelPoint(run, model, 1, Interval(speed, 0.9 * speed, 1.1 * speed), {"generation": Estimate(1, 0)})

    by_run = {
        "one": [point("one", "dense", 20.0), point("one", "pruned", 24.0)],
        "busy": [point("busy", "dense", 10.0), point("busy", "pruned", 15.0)],
    }
    monkeypatch.setattr(across_runs, "model_points", lambda results, name: by_run[name])
    points = all_points({"one": None, "busy": None})
    assert [(one.run, one.model, one.speed.value) for one in points] == [
        ("one", "dense", 20.0),
        ("one", "pruned", 24.0),
        ("busy", "pruned", 30.0),
    ]
    assert points[2].speed.high == pytest.approx(33.0)
