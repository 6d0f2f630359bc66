"""Cutting a cut: a run whose model is an earlier run's model keeps the dense root, as provenance and as teacher."""

import json
import shutil

import pytest

from tests.test_pipeline import recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.config import parse_recipe
from trl_prune.context import Run
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.families import LAYERS


def values_of(folder, name, **sections):
    shared = {"recover": {}, "evaluate": {"tasks": [], "questions": []}}
    return recipe_values(folder, name) | shared | sections


@pytest.fixture
def first(tmp_path):
    return run_recipe(parse_recipe(values_of(tmp_path, "first", rewrite=None), "test"), ["score", "prune"])


def test_the_second_run_keeps_the_root_and_learns_from_it(first, tmp_path):
    model = str(first.model_dir("pruned"))
    values = values_of(tmp_path, "second", model=model, prune={"target": {"layers": 1}})
    second = run_recipe(parse_recipe(values, "test"), ["score", "prune", "rewrite"])
    told, before = read_provenance(second.model_dir("pruned")), read_provenance(first.model_dir("pruned"))
    assert told.dense == before.dense
    assert told.dense["path"] == str((tmp_path / "dense").resolve())
    assert told.parent == model
    assert told.keep[LAYERS][0] in before.keep[LAYERS]
    assert second.dense_dir == first.model_dir("pruned")
    assert second.teacher_dir == first.dense_dir == first.teacher_dir

    own = run_recipe(parse_recipe(values_of(tmp_path, "own"), "test"), ["rewrite"])
    rows = [run.folder.output("rewrite", "rows").read_text().splitlines() for run in (second, own)]
    assert [json.loads(row)["rewrite"] for row in rows[0]] == [json.loads(row)["rewrite"] for row in rows[1]]


def test_a_root_that_is_gone_is_told(first, tmp_path):
    model = str(first.model_dir("pruned"))
    recipe = parse_recipe(values_of(tmp_path, "second", model=model, prune={"target": {"layers": 1}}), "test")
    shutil.rmtree(tmp_path / "dense")
    with pytest.raises(InputError, match="names its root, which teaches: .*dense"):
        _ = Run(recipe).teacher_dir
