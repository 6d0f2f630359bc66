"""What a recipe's prune section asks for, in sizes."""

import pytest

from tests.test_pipeline import recipe
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.keep import complete_keep
from trl_prune.pruning.sizes.grid import first_units
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.runs.context import Run
from trl_prune.runs.pruning_plan import lost_to_rounding, planned_keep, round_sizes, wanted_sizes
from trl_prune.runs.repairs import calibration_tokens, left_out, wanted_repairs
from trl_prune.runs.scoring import score_model


def run_of(tmp_path, **prune):
    return Run(recipe(tmp_path, prune=prune, recover={}, rewrite=None))


@pytest.mark.parametrize(
    ("target", "sizes"),
    [
        ({"layers": 3}, {"num_hidden_layers": 3}),
        ({"layers": 4}, {}),
        ({"num_key_value_heads": 1}, {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ({"share": 1.0}, {}),
        ({"parameters": 10**9}, {}),
    ],
)
def test_sizes_that_are_asked_for(tmp_path, target, sizes):
    assert wanted_sizes(run_of(tmp_path, target=target)) == sizes


@pytest.mark.parametrize("kind", ["parameters", "bytes", "memory"])
def test_budgets_leave_no_more_than_they_say(tmp_path, kind):
    costs = run_of(tmp_path, target={"layers": 4}).costs
    dense = list(range(4))
    most = {
        "parameters": costs.count(costs.sizes, dense),
        "bytes": costs.disk_bytes(costs.sizes, dense),
        "memory": costs.disk_bytes(costs.sizes, dense) + costs.cache_bytes(costs.sizes, dense, 2, 100),
    }[kind]
    target = {kind: int(0.7 * most), "axes": ["num_hidden_layers"]} | (
        {"batch": 2, "context": 100} if kind == "memory" else {}
    )
    sizes = costs.sizes | wanted_sizes(run_of(tmp_path, target=target))
    left = {
        "parameters": costs.count(sizes, range(sizes["num_hidden_layers"])),
        "bytes": costs.disk_bytes(sizes, range(sizes["num_hidden_layers"])),
        "memory": costs.disk_bytes(sizes, range(sizes["num_hidden_layers"]))
        + costs.cache_bytes(sizes, range(sizes["num_hidden_layers"]), 2, 100),
    }[kind]
    assert left <= 0.7 * most
    assert sizes["num_hidden_layers"] < 4


def test_what_rounding_takes_is_said(tmp_path):
    target = {"share": 0.86, "axes": ["intermediate_size"]}
    run = run_of(tmp_path, target=target)
    told = lost_to_rounding(run)
    exact = wanted_sizes(run_of(tmp_path, target=target, round_sizes=False))["intermediate_size"]
    rounded = wanted_sizes(run)["intermediate_size"]
    assert told == (f"rounded to multiples: intermediate_size {exact} -> {rounded}" if exact != rounded else "")
    assert rounded % 2 == 0


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ({"hidden_size": 64}, "prune.target.hidden_size is 64; allowed: 1..32"),
        ({"num_experts": 2}, "num_experts"),
        ({"hidden_size": 18}, "multiple of num_attention_heads; 18 is none of 4"),
        ({"num_attention_heads": 3}, "num_attention_heads is to be 3 in 2 KV groups of up to 2; allowed: 2, 4"),
        ({"parameters": 10}, "the budget is 10, and the least of num_hidden_layers leaves"),
    ],
)
def test_targets_that_cannot_be_are_told(tmp_path, target, told):
    run = run_of(tmp_path, target=target)
    with pytest.raises(InputError, match=told):
        Cut.of(run.config, planned_keep(run))


def test_a_spread_model_is_scored_alike(tmp_path):
    told = []
    for device_map in (None, "auto"):
        run = run_of(tmp_path, target={"layers": 3})
        run.recipe = run.recipe.model_copy(
            update={"score": run.recipe.score.model_copy(update={"device_map": device_map})}
        )
        told.append(score_model(run, run.load_for_scoring(run.dense_dir), tmp_path / "partial"))
    assert told[0].layers.block_influence().tolist() == told[1].layers.block_influence().tolist()
    assert told[0].heads().tolist() == told[1].heads().tolist()


def test_repairs_want_texts_enough(tmp_path):
    depth, width = run_of(tmp_path, target={"layers": 3}), run_of(tmp_path, target={"intermediate_size": 40})
    tokens = calibration_tokens(depth)
    assert tokens >= 320
    assert list(wanted_repairs(depth, Cut.of(depth.config, planned_keep(depth)))) == ["linear_map"]
    cut = Cut.of(width.config, planned_keep(width))
    few = run_of(tmp_path, target={"intermediate_size": 40})
    few.recipe = few.recipe.model_copy(update={"score": few.recipe.score.model_copy(update={"samples": 2})})
    assert list(wanted_repairs(width, cut)) == ["least_squares"]
    assert wanted_repairs(few, cut) == {}
    assert left_out(few, cut) == (
        f"no least_squares: {calibration_tokens(few)} calibration tokens, 480 wanted (`score.samples`)"
    )


@pytest.mark.parametrize(
    "target",
    [{"num_key_value_heads": 1}, {"hidden_size": 20}, {"num_attention_heads": 2, "hidden_size": 24, "layers": 3}],
)
def test_rounds_go_by_sizes_that_can_be(tmp_path, target):
    run = run_of(tmp_path, target=target, rounds=2)
    sizes = wanted_sizes(run)
    steps = round_sizes(run, sizes)
    assert steps[-1] == sizes
    for step in steps:
        complete_keep(first_units(run.costs.sizes | step, run.costs), run.config, run.costs.family)


def test_a_target_that_keeps_everything_is_told(tmp_path):
    for target in ({"layers": 4}, {"share": 1.0}):
        with pytest.raises(InputError, match="keeps every unit"):
            planned_keep(run_of(tmp_path, target=target))


def test_a_task_that_is_not_there_is_told_before_anything(tmp_path):
    with pytest.raises(InputError, match="prune.by names the task 'no_such_task'"):
        run_recipe(
            recipe(tmp_path, prune={"by": "task:no_such_task", "target": {"layers": 3}}, recover={}, rewrite=None)
        )
    assert not (tmp_path / "run" / "score").exists()


def test_heads_are_cut_to_a_budget_by_numbers_that_divide_the_channels(tmp_path):
    run = run_of(tmp_path, target={"share": 0.8, "axes": ["num_attention_heads", "intermediate_size"]})
    assert wanted_sizes(run)["num_attention_heads"] == 2
