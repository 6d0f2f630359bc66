"""The comparison of each model with the dense one on held-out text."""

import json

import pytest

from tests.evaluation.harness.conftest import Asked
from tests.recipes import recipe_values
from trl_prune.checkpoints import load_model
from trl_prune.data.batches import calibration_batches
from trl_prune.errors import InputError
from trl_prune.evaluation.forgetting import measure_forgetting
from trl_prune.pipeline import plan, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import HELD_OUT_TEXT
from trl_prune.stages import evaluate


def values_with_held_out(folder, name="run"):
    values = recipe_values(folder, name)
    (folder / "held_out.jsonl").write_text("\n".join(json.dumps({"text": f"A text about {n}."}) for n in range(9)))
    values["evaluate"] |= {"held_out": {"path": str(folder / "held_out.jsonl")}, "batch_size": 4}
    values["recover"] = {"sft": values["recover"]["sft"]}
    del values["rewrite"]
    return values


def results(run):
    return {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("evaluate/*/*.json")}


@pytest.fixture
def asked(monkeypatch):
    return Asked(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    return folder, run_recipe(parse_recipe(values_with_held_out(folder), "test"))


def test_every_model_has_its_distance_from_the_dense_one(finished):
    _, run = finished
    found = RunResults(run).forgetting
    assert list(found) == ["dense", "pruned", "sft"]
    assert found["dense"].kl == 0
    assert found["pruned"].kl > 0
    batches = calibration_batches(run.rows(run.recipe.evaluate.held_out), run.tokenizer, 1, 512)
    for name, values in found.items():
        model, dense = (load_model(run.model_dir(one), "float32", "cpu") for one in (name, "dense"))
        expected = measure_forgetting(model, dense, batches)
        assert values.kl == pytest.approx(expected.kl, rel=1e-4)
        assert values.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-4)
        assert run.folder.require("evaluate", name).metrics[HELD_OUT_TEXT]["tokens"] == expected.tokens


def test_the_report_shows_the_distances_and_the_scores_are_unchanged(finished):
    _, run = finished
    assert set(RunResults(run).scores["dense"]) == {"tiny_choice", "tiny_other"}
    markdown = (run.folder.stage_dir("report") / "report.md").read_text()
    assert "KL to the dense model on held-out text: before and after recovery" in markdown
    assert "| dense |  | 0.0000 |" in markdown
    assert f"| pruned | before | {RunResults(run).forgetting['pruned'].kl:.4f} |" in markdown
    assert "; KL to the dense model on " in "\n".join(plan(run.recipe))


def test_another_model_is_evaluated_without_measuring_the_others_again(finished):
    folder, run = finished
    before = results(run)
    values = values_with_held_out(folder)
    values["recover"]["kd"] = values["recover"]["sft"] | {"method": "kd", "tokens": 200}
    run = run_recipe(parse_recipe(values, "test"), ["evaluate"])
    after = results(run)
    assert {path: after[path] for path in before} == before
    assert list(RunResults(run).forgetting) == ["dense", "pruned", "sft", "kd"]


def test_a_finished_comparison_is_reused_and_other_texts_are_measured_anew(finished, monkeypatch):
    folder, run = finished
    stage_dir = run.folder.stage_dir("evaluate", "pruned")
    monkeypatch.setattr(evaluate, "compare_with_dense", lambda *_: pytest.fail("measured again"))
    assert evaluate.held_out_metrics(run, "pruned", stage_dir, lambda: pytest.fail("loaded"))["kl"] > 0
    before = evaluate.inputs(run, "pruned")
    (folder / "held_out.jsonl").write_text(json.dumps({"text": "Another text."}))
    assert evaluate.inputs(Run(run.recipe), "pruned") != before


def evaluated_again(run, asked, monkeypatch, **changes):
    """Evaluate after a change of the section; return what each model was asked, by kind, and the new run."""
    values = run.recipe.model_dump(exclude_unset=True)
    values["evaluate"] |= changes
    questions = []
    generate = evaluate.generate_batch
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "generate_batch", lambda *args: questions.extend(args[2]) or generate(*args))
        run = run_recipe(parse_recipe(values, "test"), ["evaluate"])
    return {"requests": len(asked.take()), "questions": len(questions)}, run


def test_a_change_asks_every_model_only_what_is_new(tmp_path, asked, monkeypatch):
    values = recipe_values(tmp_path)
    values |= {"recover": {}, "rewrite": None}
    values["evaluate"] |= {"limit": 4, "tasks": ["tiny_choice"]}
    run = run_recipe(parse_recipe(values, "test"), ["evaluate"])
    assert len(asked.take()) == 2 * 4 * 2, "two models, four items, two choices"
    scores = RunResults(run).scores
    for change, expected in [
        ({"questions": ["Why?", "How?"], "limit": 6}, {"requests": 2 * 2 * 2, "questions": 2}),
        ({"tasks": ["tiny_choice", "tiny_other"], "limit": 4, "batch_size": 3}, {"requests": 0, "questions": 0}),
    ]:
        found, run = evaluated_again(run, asked, monkeypatch, **change)
        assert found == expected, change
    assert RunResults(run).scores["pruned"]["tiny_choice"] == scores["pruned"]["tiny_choice"]
    assert RunResults(run).scores["pruned"]["tiny_other"].items == scores["pruned"]["tiny_choice"].items
    assert list(RunResults(run).answers) == ["How?", "Why?"]


@pytest.mark.slow
def test_an_interrupted_evaluation_leaves_the_results_of_an_uninterrupted_one(tmp_path, monkeypatch):
    values = recipe_values(tmp_path, "killed") | {"recover": {}, "rewrite": None}
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "answer_questions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(parse_recipe(values, "test"), ["evaluate"])
    killed = run_recipe(parse_recipe(values, "test"), ["evaluate"])
    whole = run_recipe(parse_recipe(values | {"output": str(tmp_path / "whole")}, "test"), ["evaluate"])
    for name in ("dense", "pruned"):
        one, other = (run.folder.stage_dir("evaluate", name) / "result.json" for run in (killed, whole))
        assert json.loads(one.read_text())["metrics"] == json.loads(other.read_text())["metrics"]
        assert json.loads(one.read_text())["outputs"] == json.loads(other.read_text())["outputs"]


def test_without_held_out_texts_results_of_older_versions_match(tmp_path):
    run = Run(parse_recipe(recipe_values(tmp_path), "test"))
    assert set(evaluate.inputs(run, "dense")) == {"model", "tasks"}
    assert "held_out" not in evaluate.settings(run, "dense")["evaluate"]


def test_texts_that_arms_train_on_are_refused(tmp_path):
    values = values_with_held_out(tmp_path)
    values["evaluate"]["held_out"] = values["dataset"] | {"rows": 3}
    with pytest.raises(InputError, match="evaluate.held_out is .*rows.jsonl', split 'train', which arms train on"):
        list(plan(parse_recipe(values, "test")))
    values = values_with_held_out(tmp_path)
    source = {"source": "text", "share": 1, "dataset": values["evaluate"]["held_out"]}
    values["recover"]["sft"]["data"] = [source]
    with pytest.raises(InputError, match="which arms train on"):
        list(plan(parse_recipe(values, "test")))
