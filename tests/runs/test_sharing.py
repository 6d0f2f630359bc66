"""Several processes write the same files as one."""

import json
import sys
from dataclasses import replace

import pytest

from tests.recipes import recipe, recipe_values
from tests.trainers.test_launching import config_file
from trl_prune.data.sharing import ProcessShare
from trl_prune.errors import InputError
from trl_prune.pipeline import execute_part, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.runs import sharing
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import single_process_share, write_in_processes
from trl_prune.stages import cache_teacher, rewrite
from trl_prune.trainers.launching import Launch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing")
    recipe_values(folder)
    return folder


def shared_recipe(folder, name):
    """Return a recipe with a teacher cache and small batches: enough for several processes."""
    arm = {"method": "kd", "data": "references", "args": {"num_train_epochs": 1, "max_length": 64}}
    values = recipe_values(folder, name) | {"recover": {"kd": arm}, "cache_teacher": {"tier": "topk", "top_k": 4}}
    return parse_recipe(values | {"rewrite": {"max_new_tokens": 4, "batch_size": 3}}, "test")


def files(folder, pattern):
    return {path.name: path.read_bytes() for path in folder.rglob(pattern)}


@pytest.mark.slow
def test_shares_in_any_order_write_what_one_process_writes(folder, monkeypatch):
    run = Run(shared_recipe(folder, "alone"))
    with run.folder.lock("x"):
        run.record_choices()
    rewrite.write_share(run, folder / "one", single_process_share("rewrite", "batch"))
    for rank in (2, 0, 1):
        rewrite.write_share(run, folder / "three", ProcessShare(rank, 3))
    assert len(files(folder / "one" / rewrite.ANSWERS, "*")) > 3
    assert files(folder / "one" / rewrite.ANSWERS, "*") == files(folder / "three" / rewrite.ANSWERS, "*")
    spec = cache_teacher.cache_spec
    monkeypatch.setattr(cache_teacher, "cache_spec", lambda run: replace(spec(run), shard_tokens=100))
    for name, shares in (("one", [ProcessShare()]), ("three", [ProcessShare(rank, 3) for rank in (2, 0, 1)])):
        for share in shares:
            cache_teacher.write_share(run, folder / name, share)
    assert len(files(folder / "one", "shard-*")) > 3
    assert files(folder / "one" / "cache", "*") == files(folder / "three" / "cache", "*")


def test_nothing_is_started_for_one_process(folder, monkeypatch):
    monkeypatch.setattr(sharing, "run_processes", lambda *_: pytest.fail("processes were started"))
    write_in_processes(Run(recipe(folder)), rewrite.__name__, folder / "alone")


def test_processes_get_the_recipe_and_the_stage(folder, monkeypatch):
    def processes(launch, module, job):
        assert (launch, module) == (Launch(2), "trl_prune.stages.rewrite")
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setattr(sys, "argv", [module, str(job), "2"])
            assert sharing.share_main("rewrite", rewrite.write_share) == 0

    monkeypatch.setattr(sharing, "run_processes", processes)
    run = Run(shared_recipe(folder, "shared"), Launch(2))
    with run.folder.lock(run.recipe.model):
        run.record_choices()
        execute_part(run, rewrite.STAGE, "")
    single = Run(shared_recipe(folder, "single"))
    with single.folder.lock(single.recipe.model):
        single.record_choices()
        execute_part(single, rewrite.STAGE, "")
    assert run.folder.output("rewrite", "rows").read_text() == single.folder.output("rewrite", "rows").read_text()
    assert not (run.folder.stage_dir("rewrite") / sharing.JOB).exists()


@pytest.mark.slow(minutes=1)
def test_two_started_processes_write_what_one_writes(folder, tmp_path):
    results = {}
    for name, config in (("first", None), ("second", str(config_file(tmp_path)))):
        run = run_recipe(shared_recipe(folder, name), ["rewrite", "cache_teacher"], config)
        results[name] = json.loads((run.folder.path / "rewrite" / "result.json").read_text())["outputs"]
        results[name]["cache"] = files(run.folder.path / "cache_teacher" / "cache", "*")
        assert not list(run.folder.path.rglob(sharing.JOB))
    assert results["first"] == results["second"]


@pytest.mark.slow
def test_an_input_error_of_a_process_is_raised_here(folder, tmp_path):
    values = recipe_values(folder, "refused")
    run = Run(parse_recipe(values, "test"), Launch(2, config_file(tmp_path)))
    with run.folder.lock(run.recipe.model):
        run.record_choices()
        (folder / "rows.jsonl").rename(folder / "moved.jsonl")
        try:
            with pytest.raises(InputError, match="is not a local file"):
                write_in_processes(run, rewrite.__name__, tmp_path / "stage")
        finally:
            (folder / "moved.jsonl").rename(folder / "rows.jsonl")
