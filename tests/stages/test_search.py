"""The search on a tiny model: a plan before anything heavy, a real successive_halving, and the same successive_halving killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.test_pipeline import recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.keep import kept_sizes
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.search_space import fitting, found_keep, scores_of
from trl_prune.runs.trials import split_rows


ARGS = {"per_device_train_batch_size": 2, "logging_steps": 2, "save_steps": 2, "gradient_checkpointing": False}
SEARCH = {
    "budget": {"share": 0.75, "tolerance": 0.25},
    "grid": {LAYERS: [2, 3]},
    "samples": 4,
    "candidates": 2,
    "rungs": [300, 800],
    "train": {"args": ARGS | {"learning_rate": 1e-3, "max_length": 128}},
}


def search_values(folder: Path, name: str = "run", **changes: object) -> dict:
    return recipe_values(folder, name) | {
        "search": SEARCH | changes,
        "prune": {"by": "search"},
        "recover": {},
        "rewrite": None,
        "evaluate": {"tasks": [], "questions": []},
    }


def searched(folder: Path, name: str = "run", **changes: object):
    return run_recipe(parse_recipe(search_values(folder, name, **changes), "test"), ["score", "search"])


def table(run) -> dict:
    return json.loads(run.folder.output("search", "candidates").read_text())


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, run_recipe(parse_recipe(search_values(folder), "test"), ["score", "search", "prune"])


def test_the_race_ends_with_a_plan_that_is_pruned(road):
    _, run = road
    told = table(run)
    assert [len(one["scores"]) for one in told["candidates"]] == [3, 3]
    assert told["tokens"] == [0, 300, 800]
    assert told["winner"] == told["candidates"][0]["name"]
    assert len(told["stability"]) == 2
    keep = found_keep(run)
    assert kept_sizes(keep)[LAYERS] == told["candidates"][0]["sizes"][LAYERS]
    assert read_provenance(run.model_dir("pruned")).keep == keep
    counted = run.folder.needed("prune").metrics["pruned"]["parameters"]
    assert counted == told["candidates"][0]["parameters"]


def test_scores_are_of_held_out_texts_and_training_lowers_them(road):
    _, run = road
    held, rest = split_rows(run)
    assert len(held) == SEARCH["samples"]
    assert len(held) + len(rest) == len(run.dataset)
    for one in table(run)["candidates"]:
        assert one["scores"] == sorted(one["scores"], reverse=True)


def test_nothing_of_the_losers_is_left_and_the_pictures_are_there(road):
    _, run = road
    left = {path.name for path in run.folder.stage_dir("search").iterdir()}
    assert left == {
        "candidates.json", "keep.json", "measured.json", "result.json", "pareto.png", "ranks.png",
        "timing.json",
    }  # fmt: skip


def test_a_finished_search_is_skipped_and_a_changed_one_is_not(road):
    folder, run = road
    stamp = (run.folder.stage_dir("search") / "result.json").stat().st_mtime_ns
    searched(folder)
    assert (run.folder.stage_dir("search") / "result.json").stat().st_mtime_ns == stamp
    lines = "\n".join(plan(parse_recipe(search_values(folder, rungs=[400]), "test")))
    assert "run  search" in lines


def test_scores_that_were_made_anew_are_read_anew(tmp_path):
    def scored(samples: int) -> Run:
        return run_recipe(parse_recipe(search_values(tmp_path) | {"score": {"samples": samples}}, "test"), ["score"])

    run = scored(4)
    assert scores_of(run).texts == 4
    scored(8)
    assert scores_of(run).texts == 8


def test_a_dry_run_names_every_size_and_the_tokens(tmp_path):
    lines = "\n".join(plan(parse_recipe(search_values(tmp_path), "test")))
    assert "2 sizes with " in lines
    assert "L3-H32-F48-A4-K2" in lines
    assert "2 -> 2 of them trained to 300 -> 800 tokens: 1,600 tokens in all" in lines
    assert not (tmp_path / "run").exists()


def test_without_rungs_the_untrained_score_decides(tmp_path):
    run = searched(tmp_path, rungs=[])
    told = table(run)
    assert told["tokens"] == [0]
    assert told["winner"] == min(told["candidates"], key=lambda one: one["scores"][0])["name"]


def test_every_axis_is_cut_by_the_scores(tmp_path):
    grid = {LAYERS: [3], HIDDEN: [16, 32], NEURONS: [24, 48], HEADS: "auto", GROUPS: [1, 2]}
    run = searched(tmp_path, grid=grid, max_width=0.5, budget={"share": 0.5, "tolerance": 0.3}, rungs=[200])
    told = table(run)["candidates"]
    assert {one["sizes"][axis] for one in told for axis in (HIDDEN, NEURONS)} == {16, 24, 32, 48}
    assert {(one["sizes"][HEADS], one["sizes"][GROUPS]) for one in told} == {(4, 2), (2, 2), (2, 1)}
    sizes = kept_sizes(found_keep(run))
    assert {axis: sizes.get(axis, run.costs.sizes[axis]) for axis in run.costs.sizes} == told[0]["sizes"]
    assert run.size(found_keep(run)).parameters == told[0]["parameters"]


def test_candidates_can_be_distilled(tmp_path):
    run = searched(
        tmp_path, rungs=[300], train={"method": "kd", "args": ARGS | {"learning_rate": 1e-3, "max_length": 128}}
    )
    for one in table(run)["candidates"]:
        untrained, distilled = one["scores"]
        assert untrained != distilled
    assert run.folder.needed("search").inputs["teacher"] == run.dense_fingerprint


def test_a_task_can_rank(tmp_path):
    values = search_values(tmp_path, rungs=[], score="tiny_choice")
    values["evaluate"]["include_path"] = [str(tmp_path / "tasks")]
    told = table(run_recipe(parse_recipe(values, "test"), ["score", "search"]))
    assert all(0 <= one["scores"][0] <= 1 for one in told["candidates"])
    assert told["winner"] == max(told["candidates"], key=lambda one: one["scores"][0])["name"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"budget": {"parameters": 10}},
            "search: none of the 2 sizes in the grid has 10 to 10 parameters; the nearest",
        ),
        ({"samples": 24}, "held out of 24 rows: none are left to train on"),
        ({"grid": {"num_experts": "auto"}}, "axis 'num_experts'"),
        ({"train": {"args": {"learning_rat": 1}}}, "search.train.args.learning_rat"),
    ],
)
def test_mistakes_are_told_before_anything_starts(tmp_path, changes, told):
    with pytest.raises(InputError, match=told):
        searched(tmp_path, **changes)
    assert not (tmp_path / "run").exists()


def test_budgets_of_bytes_are_ceilings(tmp_path):
    def found(**budget: object) -> list[Candidate]:
        return fitting(Run(parse_recipe(search_values(tmp_path, budget={"tolerance": 0.3} | budget), "test")))

    run = Run(parse_recipe(search_values(tmp_path), "test"))
    weights = {one.name: one.cost for one in found(bytes=150_000)}
    assert list(weights) == ["L2-H32-F48-A4-K2"]
    assert weights["L2-H32-F48-A4-K2"] == run.costs.disk_bytes(found(bytes=150_000)[0].sizes, range(2))
    both = found(memory=160_000, batch=2, context=16)
    assert {one.name: one.cost - weights[one.name] for one in both} == {"L2-H32-F48-A4-K2": 2 * 2 * 16 * 2 * 2 * 8 * 4}


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_result(tmp_path):
    """Kill -9 at moments spread over the successive_halving; what comes out is what an unbroken successive_halving gives, to the byte."""
    values = search_values(tmp_path)
    wanted = (searched(tmp_path, "whole").folder.stage_dir("search") / "result.json").read_text()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    run_recipe(parse_recipe(values, "test"), ["score"])
    command = [sys.executable, "-m", "trl_prune.cli", "search", str(recipe)]
    measured = tmp_path / "run" / "search" / "measured.json"
    for entries in (1, 3, 5):
        killed(
            command, lambda entries=entries: measured.is_file() and len(json.loads(measured.read_text())) >= entries
        )
    assert subprocess.run(command, check=False).returncode == 0
    assert (tmp_path / "run" / "search" / "result.json").read_text() == wanted


def killed(command: list[str], reached) -> None:
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
