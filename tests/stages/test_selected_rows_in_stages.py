"""Rewriting, caching and training on selected rows, from stage to stage."""

import pytest
import torch

from tests.stages.test_select import values
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.sequences import row_keys
from trl_prune.pipeline import plan, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.runs.arms import training_args
from trl_prune.runs.artifacts import RESULT
from trl_prune.runs.selected_rows import selected_rows
from trl_prune.trainers.preparation import prepare_rows


def recipe_with(folder, arms, **sections):
    found = values(folder)
    args = found["recover"]["sft"]["args"]
    recover = {name: {"args": args} | arm for name, arm in arms.items()}
    return parse_recipe(found | sections | {"recover": recover}, "test")


def written(run, *parts):
    return [(run.folder.stage_dir(*part) / RESULT).stat().st_mtime_ns for part in parts]


@pytest.mark.slow  # runs the stages twice
def test_another_rewritten_selection_leaves_earlier_arms_and_the_teachers_cache(tmp_path):
    arms, cache = {"own": {}, "kd": {"method": "kd"}}, {"cache_teacher": {"batch_size": 4}}
    first = run_recipe(recipe_with(tmp_path, arms, **cache), ["recover"])
    rewritten, parts = first.folder.result_hash("rewrite"), [("recover", "own"), ("recover", "kd"), ("cache_teacher",)]
    before = written(first, *parts)
    more = recipe_with(tmp_path, arms | {"other": {"selection": "random"}}, **cache)
    assert any("run  recover other" in line for line in plan(more, ["recover"]))
    second = run_recipe(more, ["recover"])
    assert second.folder.result_hash("rewrite") != rewritten
    assert written(second, *parts) == before
    assert {second.folder.require("recover", name).metrics["rows"] for name in more.recover} == {9}


def test_the_teachers_cache_holds_the_selected_rows_that_arms_distil_on(tmp_path):
    arm = {"method": "kd", "data": "references"}
    recipe = recipe_with(
        tmp_path, {"own": arm, "other": arm | {"selection": "random"}}, cache_teacher={"batch_size": 4}, rewrite=None
    )
    run = run_recipe(recipe, ["recover"])
    cache = TeacherCache.open(run.folder.output("cache_teacher", "cache"))
    chosen = {"own": selected_rows(run, "paser"), "other": selected_rows(run, "random")}
    for name, indices in chosen.items():
        args = training_args(run, recipe.recover[name], run.dtype)
        rows = prepare_rows(run.dataset.select(indices), args, run.tokenizer, answers_only=True)
        cache.check_contains(torch.cat([row_keys(row) for row in rows]))
        assert run.folder.require("recover", name).metrics["rows"] == 9
    assert run.folder.require("cache_teacher").metrics["sequences"] == len({*chosen["own"], *chosen["other"]})


def test_random_rows_of_matched_lengths_are_as_many_as_the_first_selections(tmp_path):
    found = values(tmp_path, method="longest", selections={"matched": {"method": "random_matched", "budget": 30}})
    recipe = parse_recipe(found, "test")
    assert any("of 36 rows 9 by longest, 9 by random, 9 by matched" in line for line in plan(recipe, ["select"]))
    run = run_recipe(recipe, ["select"])
    assert len(selected_rows(run, "matched")) == 9
