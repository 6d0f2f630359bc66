"""The search on a tiny model: its plan, a full search, and the same search killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.recipes import recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS
from trl_prune.pruning.keep import kept_sizes
from trl_prune.pruning.sizes.grid import Candidate
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.search_space import load_scores, search_candidates, searched_keep
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
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, run_recipe(parse_recipe(search_values(folder), "test"), ["score", "search", "prune"])


def test_the_winners_plan_is_pruned(finished):
    _, run = finished
    result = table(run)
    best = result["candidates"][0]
    assert [len(candidate["scores"]) for candidate in result["candidates"]] == [3, 3]
    assert result["tokens"] == [0, 300, 800]
    assert result["winner"] == best["name"]
    assert len(result["stability"]) == 2
    keep = searched_keep(run)
    assert kept_sizes(keep)[LAYERS] == best["sizes"][LAYERS]
    assert read_provenance(run.model_dir("pruned")).keep == keep
    counted = run.folder.require("prune").metrics["pruned"]["parameters"]
    assert counted == best["parameters"]


def test_scores_are_of_held_out_texts_and_training_lowers_them(finished):
    _, run = finished
    held, rest = split_rows(run)
    assert len(held) == SEARCH["samples"]
    assert len(held) + len(rest) == len(run.dataset)
    for candidate in table(run)["candidates"]:
        assert candidate["scores"] == sorted(candidate["scores"], reverse=True)


def test_only_results_and_figures_are_left(finished):
    _, run = finished
    names = {path.name for path in run.folder.stage_dir("search").iterdir()}
    assert names == {
        "candidates.json", "keep.json", "measured.json", "result.json", "pareto.png", "ranks.png",
        "timing.json",
    }  # fmt: skip


def test_a_finished_search_is_skipped_and_a_changed_one_is_not(finished):
    folder, run = finished
    stamp = (run.folder.stage_dir("search") / "result.json").stat().st_mtime_ns
    searched(folder)
    assert (run.folder.stage_dir("search") / "result.json").stat().st_mtime_ns == stamp
    lines = "\n".join(plan(parse_recipe(search_values(folder, rungs=[400]), "test")))
    assert "run  search" in lines


def test_new_scores_are_read_again(tmp_path):
    def scored(samples: int) -> Run:
        return run_recipe(parse_recipe(search_values(tmp_path) | {"score": {"samples": samples}}, "test"), ["score"])

    run = scored(4)
    assert load_scores(run).num_texts == 4
    scored(8)
    assert load_scores(run).num_texts == 8


def test_a_dry_run_names_every_size_and_the_tokens(tmp_path):
    lines = "\n".join(plan(parse_recipe(search_values(tmp_path), "test")))
    assert "2 sizes with " in lines
    assert "L3-H32-F48-A4-K2" in lines
    assert "2 -> 2 of them trained to 300 -> 800 tokens: 1,600 tokens in all" in lines
    assert not (tmp_path / "run").exists()


def test_without_rungs_the_untrained_score_decides(tmp_path):
    run = searched(tmp_path, rungs=[])
    result = table(run)
    assert result["tokens"] == [0]
    assert result["winner"] == min(result["candidates"], key=lambda candidate: candidate["scores"][0])["name"]


@pytest.mark.slow
def test_every_axis_is_cut_by_the_scores(tmp_path):
    grid = {LAYERS: [3], HIDDEN: [16, 32], NEURONS: [24, 48], HEADS: "auto", KV_HEADS: [1, 2]}
    run = searched(tmp_path, grid=grid, max_width=0.5, budget={"share": 0.5, "tolerance": 0.3}, rungs=[200])
    candidates = table(run)["candidates"]
    shapes = [candidate["sizes"] for candidate in candidates]
    assert {shape[axis] for shape in shapes for axis in (HIDDEN, NEURONS)} == {16, 24, 32, 48}
    assert {(shape[HEADS], shape[KV_HEADS]) for shape in shapes} == {(4, 2), (2, 2), (2, 1)}
    sizes = kept_sizes(searched_keep(run))
    assert {axis: sizes.get(axis, run.costs.sizes[axis]) for axis in run.costs.sizes} == shapes[0]
    assert run.size(searched_keep(run)).parameters == candidates[0]["parameters"]


@pytest.mark.slow
def test_candidates_can_be_distilled(tmp_path):
    run = searched(
        tmp_path, rungs=[300], train={"method": "kd", "args": ARGS | {"learning_rate": 1e-3, "max_length": 128}}
    )
    for candidate in table(run)["candidates"]:
        untrained, distilled = candidate["scores"]
        assert untrained != distilled
    assert run.folder.require("search").inputs["teacher"] == run.dense_fingerprint


def test_a_task_can_rank(tmp_path):
    values = search_values(tmp_path, rungs=[], score="tiny_choice")
    values["evaluate"]["include_path"] = [str(tmp_path / "tasks")]
    result = table(run_recipe(parse_recipe(values, "test"), ["score", "search"]))
    assert all(0 <= candidate["scores"][0] <= 1 for candidate in result["candidates"])
    assert result["winner"] == max(result["candidates"], key=lambda candidate: candidate["scores"][0])["name"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budget": {"parameters": 10}},
            "search: none of the 2 sizes in the grid has 10 to 10 parameters; the nearest",
        ),
        ({"samples": 24}, "held out of 24 rows: none are left to train on"),
        ({"grid": {"num_experts": "auto"}}, "search: grid: 'num_experts' is not an axis of llama"),
        ({"train": {"args": {"learning_rat": 1}}}, "search.train.args.learning_rat"),
    ],
)
def test_input_errors_are_refused_before_anything_starts(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        searched(tmp_path, **changes)
    assert not (tmp_path / "run").exists()


def test_budgets_of_bytes_are_upper_bounds(tmp_path):
    def candidates(**budget: object) -> list[Candidate]:
        return search_candidates(
            Run(parse_recipe(search_values(tmp_path, budget={"tolerance": 0.3} | budget), "test"))
        )

    run = Run(parse_recipe(search_values(tmp_path), "test"))
    weights = {candidate.name: candidate.cost for candidate in candidates(bytes=150_000)}
    assert list(weights) == ["L2-H32-F48-A4-K2"]
    assert weights["L2-H32-F48-A4-K2"] == run.costs.disk_bytes(candidates(bytes=150_000)[0].sizes, range(2))
    with_cache = candidates(memory=160_000, batch_size=2, max_model_len=16)
    caches = {candidate.name: candidate.cost - weights[candidate.name] for candidate in with_cache}
    assert caches == {"L2-H32-F48-A4-K2": 2 * 2 * 16 * 2 * 2 * 8 * 4}


@pytest.mark.slow(minutes=1.5)
def test_a_search_killed_several_times_ends_with_the_same_result(tmp_path):
    """Kill -9 at several moments of the search: the result equals that of an uninterrupted search, byte for byte."""
    values = search_values(tmp_path)
    expected = (searched(tmp_path, "uninterrupted").folder.stage_dir("search") / "result.json").read_text()
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
    assert (tmp_path / "run" / "search" / "result.json").read_text() == expected


def killed(command: list[str], reached) -> None:
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
