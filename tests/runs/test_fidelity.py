"""Models held against the dense model's own answers, in a run."""

import json

import pytest

from tests.evaluation.test_fidelity import writer
from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.reporting.results import RunResults
from trl_prune.runs.artifacts import RunFolder
from trl_prune.runs.context import Run
from trl_prune.runs.fidelity import check_fidelity, fidelity_file
from trl_prune.stages import evaluate


def values_with_fidelity(folder, **section):
    values = recipe_values(folder)
    values |= {"recover": {}, "rewrite": None}
    fidelity = {"dataset": {"path": values["dataset"]["path"]}, "rows": 6, "max_new_tokens": 8}
    values["evaluate"] |= {"tasks": ["tiny_choice"], "limit": 2, "fidelity": fidelity | section, "batch_size": 4}
    return values


def models(run, name):
    """Models of letters, whose texts read back as the same tokens: the pruned one is another model."""
    return writer(seed=0 if name == "dense" else 1)


@pytest.mark.slow
def test_models_are_held_against_answers_that_are_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "load", models)
    run = run_recipe(parse_recipe(values_with_fidelity(tmp_path), "test"), ["evaluate", "report"])
    found = RunResults(run).fidelity
    assert list(found) == ["pruned"], "the dense model agrees with itself"
    assert found["pruned"]["sampled_kl"]["mean"] > 0
    assert found["pruned"]["agreement"]["mean"] < 1
    assert list(RunResults(run).scores["pruned"]) == ["tiny_choice"], "they are no tasks of the recipe"
    path = fidelity_file(run)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 6
    assert all(line["context"].endswith("assistant\n") and "right_answer" in line for line in lines)
    assert "The dense model's own answers" in (run.folder.stage_dir("report") / "report.md").read_text()
    monkeypatch.setattr(Run, "load", lambda *_: pytest.fail("a model is loaded"))
    folder = run.folder.stage_dir("evaluate", "pruned")
    again = evaluate.fidelity_metrics(Run(run.recipe), "pruned", folder, lambda: pytest.fail("loaded"), lambda _: None)
    assert again == found["pruned"]


def test_answers_of_other_settings_are_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "load", models)
    paths = set()
    for section in ({"rows": 2}, {"rows": 3}, {"rows": 2, "max_new_tokens": 5}, {"rows": 2}):
        run = Run(parse_recipe(values_with_fidelity(tmp_path, **section), "test"))
        paths.add(fidelity_file(run))
    assert len(paths) == 3
    assert not list(RunFolder(tmp_path / "run").path.rglob("*.part.jsonl"))


@pytest.mark.slow
def test_without_a_greedy_answer_that_reads_back_the_divergence_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "load", models)
    original = fidelity_file

    def none_usable(run):
        path = original(run)
        path.write_text(path.read_text().replace('"greedy_is_own": true', '"greedy_is_own": false'))
        return path

    monkeypatch.setattr("trl_prune.runs.fidelity.fidelity_file", none_usable)
    run = run_recipe(parse_recipe(values_with_fidelity(tmp_path), "test"), ["evaluate", "report"])
    found = RunResults(run).fidelity["pruned"]
    assert found["sampled_kl"]["mean"] > 0
    assert (found["agreement"], found["answer_flips"]) == (None, None)
    assert (found["greedy_usable"], found["greedy_written"]) == (0, 6)
    assert "not measurable (of 0 of 6)" in (run.folder.stage_dir("report") / "report.md").read_text()


def test_rows_that_are_too_long_or_have_no_prompt_are_not_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "load", models)
    rows = [{"text": "A text."}, *({"prompt": "x" * length, "completion": "y"} for length in (3, 5_000, 4, 5))]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run = Run(parse_recipe(values_with_fidelity(tmp_path, dataset={"path": str(path)}, rows=3), "test"))
    check_fidelity(run)
    contexts = [json.loads(line)["context"] for line in fidelity_file(run).read_text().splitlines()]
    assert [context.count("x") for context in contexts] == [3, 4, 5]


def test_rows_that_are_all_too_long_are_refused(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "x" * 5_000, "completion": "y"}))
    run = Run(parse_recipe(values_with_fidelity(tmp_path, dataset={"path": str(path)}), "test"))
    with pytest.raises(InputError, match="has no prompt of at most .* tokens, which leaves room for an answer of"):
        check_fidelity(run)


def test_rows_without_prompts_are_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(json.dumps({"text": "A text."}))
    run = Run(parse_recipe(values_with_fidelity(tmp_path, dataset={"path": str(path)}), "test"))
    with pytest.raises(InputError, match=r"evaluate.fidelity.dataset .*texts.jsonl' has no row with a prompt and"):
        check_fidelity(run)
