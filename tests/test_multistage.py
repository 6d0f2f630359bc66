"""Pruning a pruned model: provenance and teacher of the second run are the first run's dense model."""

import json
import shutil

import pytest
import yaml

from tests.recipes import recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.data.rewriting.provenance import read_records
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.families import LAYERS
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run


def values_of(folder, name, **sections):
    shared = {"recover": {}, "evaluate": {"tasks": [], "questions": []}}
    return recipe_values(folder, name) | shared | sections


@pytest.fixture
def first(tmp_path):
    return run_recipe(parse_recipe(values_of(tmp_path, "first", rewrite=None), "test"), ["score", "prune"])


def test_the_second_run_keeps_the_root_as_teacher(first, tmp_path):
    model = str(first.model_dir("pruned"))
    values = values_of(tmp_path, "second", model=model, prune={"target": {"layers": 1}})
    second = run_recipe(parse_recipe(values, "test"), ["score", "prune", "rewrite"])
    after, before = read_provenance(second.model_dir("pruned")), read_provenance(first.model_dir("pruned"))
    assert after.dense == before.dense
    assert after.dense["path"] == str((tmp_path / "dense").resolve())
    assert after.parent == model
    assert after.keep[LAYERS][0] in before.keep[LAYERS]
    assert second.dense_dir == first.model_dir("pruned")
    assert second.teacher_dir == first.dense_dir == first.teacher_dir

    own = run_recipe(parse_recipe(values_of(tmp_path, "own"), "test"), ["rewrite"])
    records = [read_records(run.folder.output("rewrite", "provenance")) for run in (second, own)]
    assert records[0] == records[1]


def test_a_missing_root_is_named(first, tmp_path):
    model = str(first.model_dir("pruned"))
    recipe = parse_recipe(values_of(tmp_path, "second", model=model, prune={"target": {"layers": 1}}), "test")
    shutil.rmtree(tmp_path / "dense")
    with pytest.raises(InputError, match="names its root, the teacher: .*dense"):
        _ = Run(recipe).teacher_dir


def test_rounds_count_in_the_runs_own_model(first, tmp_path):
    """The first run keeps two of four blocks; the second's rounds cut those two, and its provenance is the root's."""
    prune = {"target": {"layers": 1, "intermediate_size": 16}, "rounds": 2, "repairs": {}}
    values = values_of(tmp_path, "second", model=str(first.model_dir("pruned")), prune=prune, rewrite=None)
    second = run_recipe(parse_recipe(values, "test"), ["score", "prune"])
    keep = json.loads(second.folder.output("prune", "keep").read_text())
    after, before = read_provenance(second.model_dir("pruned")), read_provenance(first.model_dir("pruned"))
    assert keep[LAYERS][0] in (0, 1)
    assert after.keep[LAYERS] == [before.keep[LAYERS][keep[LAYERS][0]]]
    assert {len(neurons) for neurons in after.keep["intermediate_size"]} == {16}
    recipe_text = yaml.safe_load(
        run_recipe(parse_recipe(values | {"prune": {"target": {"layers": 1}}}, "test"), ["score", "prune"])
        .folder.output("prune", "passthrough")
        .read_text()
    )
    assert recipe_text["slices"][0]["sources"][0]["model"] == str(first.model_dir("pruned"))
