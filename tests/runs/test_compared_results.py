"""What a user may name: files, folders, names, runs."""

import shutil

import pytest

from tests.evaluation.lm_eval_files import DATE, write_results
from trl_prune.errors import InputError
from trl_prune.runs.compared_results import compared_results


SCORES = {"a": [1, 0, 1, 1]}


@pytest.fixture
def files(tmp_path):
    return [write_results(tmp_path / name, SCORES, model=f"org/{name}") for name in ("one", "two", "three")]


def recipe_of(output, arms):
    return (
        f"model: m\ndataset: {{path: d}}\noutput: '{output}'\nprune: {{target: {{layers: 2}}}}\n"
        f"recover: {{{', '.join(f'{arm}: {{data: references}}' for arm in arms)}}}\n"
    )


def run_folder(folder, *models, arms=("sft", "kd")):
    """Return a folder as a run leaves it."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe_of(folder, arms))
    for model in models:
        target = folder / "evaluate" / model
        path = write_results(target, SCORES)
        path.rename(target / "results.json")
        (target / f"samples_a_{DATE}.jsonl").rename(target / "samples_a.jsonl")
    return folder


def test_files_and_folders_are_named_by_lm_eval_or_by_the_user(files):
    compared = compared_results([files[0], str(files[1].parent), f"mine={files[2]}"])
    assert compared.dense == "one"
    assert list(compared.scores) == ["one", "two", "mine"]


def test_equal_names_are_replaced_by_the_files(files, tmp_path):
    again = write_results(tmp_path / "again", SCORES, model="org/one")
    assert list(compared_results([files[0], again]).scores) == [str(files[0]), str(again)]


@pytest.mark.parametrize("name_of", [lambda path: path, lambda path: path.parent.name])
def test_the_dense_and_the_pruned_model_are_named_by_path_or_name(files, name_of):
    compared = compared_results(files, dense=name_of(files[1]), pruned=name_of(files[2]))
    assert (compared.dense, compared.pruned, list(compared.scores)) == ("two", "three", ["two", "one", "three"])


def test_a_dense_model_that_is_not_among_the_results_is_added(files):
    assert compared_results(files[:1], dense=files[1]).dense == "two"


def test_all_models_of_a_run_are_compared(tmp_path):
    compared = compared_results([run_folder(tmp_path / "run", "kd", "sft", "pruned", "dense")])
    assert (compared.dense, compared.pruned) == ("dense", "pruned")
    assert list(compared.scores) == ["dense", "pruned", "sft", "kd"], "in the order of the recipe"


def test_models_that_the_recipe_no_longer_has_are_left_out(tmp_path):
    run = run_folder(tmp_path / "run", "dense", "pruned", "old", "sft", arms=["sft"])
    assert list(compared_results([run]).scores) == ["dense", "pruned", "sft"]


def test_no_results_are_a_mistake_in_one_sentence():
    with pytest.raises(InputError, match="a comparison was given no results; wanted: results of lm-eval"):
        compared_results([])


def test_a_recipe_stands_for_its_run(tmp_path):
    run_folder(tmp_path / "run", "dense", "sft")
    (tmp_path / "recipe.yaml").write_text(recipe_of(tmp_path / "run", ["sft"]))
    assert list(compared_results([tmp_path / "recipe.yaml"]).scores) == ["dense", "sft"]


def test_a_run_is_no_single_model(files, tmp_path):
    run = run_folder(tmp_path / "run", "dense", "sft")
    with pytest.raises(InputError, match=r"is a run of 2; leave out the name|is a run of 2 models"):
        compared_results([f"mine={run}"])
    with pytest.raises(InputError, match="is a run of 2 models; name one of them: dense, sft"):
        compared_results(files, dense=run)


def test_results_of_different_tasks_are_refused(files, tmp_path):
    other = write_results(tmp_path / "other", {"b": [1, 0]}, model="other")
    with pytest.raises(InputError, match=r"the results have no task in common \(one: a; other: b\)"):
        compared_results([files[0], other])
    shutil.rmtree(tmp_path / "other")
