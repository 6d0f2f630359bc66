"""The sizes and plans that a recipe's prune section leads to."""

import pytest

from tests.recipes import prune_run, recipe
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.pruning.keep import complete_keep
from trl_prune.pruning.sizes.shapes import first_units
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.runs.pruning_plan import planned_keep, recipe_sizes, sizes_per_round
from trl_prune.runs.scoring import score_checkpoint
from trl_prune.stages import prune


@pytest.mark.parametrize(
    ("target", "cut"),
    [
        ({"layers": 3}, {"num_hidden_layers": 3}),
        ({"layers": 4}, {}),
        ({"num_key_value_heads": 1}, {"num_attention_heads": 2, "num_key_value_heads": 1}),
        ({"share": 1.0}, {}),
        ({"parameters": 10**9}, {}),
    ],
)
def test_cut_axes_of_a_target(tmp_path, target, cut):
    assert recipe_sizes(prune_run(tmp_path, target=target)).cut == cut


@pytest.mark.parametrize("quantity", ["parameters", "bytes", "memory"])
def test_budgets_are_upper_bounds(tmp_path, quantity):
    costs = prune_run(tmp_path, target={"layers": 4}).costs

    def cost(sizes):
        layers = range(sizes["num_hidden_layers"])
        if quantity == "parameters":
            return costs.num_parameters(sizes, layers)
        return costs.disk_bytes(sizes, layers) + (quantity == "memory") * costs.cache_bytes(sizes, layers, 2, 100)

    limit = 0.7 * cost(costs.sizes)
    target = {quantity: int(limit), "axes": ["num_hidden_layers"]}
    if quantity == "memory":
        target |= {"batch_size": 2, "max_model_len": 100}
    sizes = costs.sizes | recipe_sizes(prune_run(tmp_path, target=target)).cut
    assert cost(sizes) <= limit
    assert sizes["num_hidden_layers"] < 4


def test_the_plan_states_what_rounding_changes(tmp_path):
    target = {"share": 0.86, "axes": ["intermediate_size"]}
    run = prune_run(tmp_path, target=target)
    exact = recipe_sizes(prune_run(tmp_path, target=target, round_sizes=False)).cut["intermediate_size"]
    rounded = recipe_sizes(run).cut["intermediate_size"]
    sentence = f"rounded to multiples: intermediate_size {exact} -> {rounded}"
    assert (sentence in prune.STAGE.describe(run, "")) == (exact != rounded)
    assert rounded % 2 == 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"hidden_size": 64}, "prune.target: hidden_size is 64; allowed: 1..32"),
        ({"num_experts": 2}, "num_experts"),
        ({"hidden_size": 18}, "multiple of num_attention_heads; 18 is not a multiple of 4"),
        ({"num_attention_heads": 3}, "num_attention_heads is 3, in 2 KV groups of up to 2 heads; allowed: 2, 4"),
        ({"parameters": 10}, "the budget is 10, and the smallest possible num_hidden_layers cost"),
    ],
)
def test_impossible_targets_are_refused(tmp_path, target, message):
    run = prune_run(tmp_path, target=target)
    with pytest.raises(InputError, match=message):
        Cut.of(run.config, planned_keep(run))


def test_a_model_spread_over_devices_gets_the_same_scores(tmp_path):
    scores = []
    for device_map in (None, "auto"):
        run = prune_run(tmp_path, target={"layers": 3})
        run.recipe = run.recipe.model_copy(
            update={"score": run.recipe.score.model_copy(update={"device_map": device_map})}
        )
        scores.append(score_checkpoint(run, run.dense_dir, tmp_path / "partial"))
    assert scores[0].layers.block_influence().tolist() == scores[1].layers.block_influence().tolist()
    assert scores[0].heads().tolist() == scores[1].heads().tolist()


@pytest.mark.parametrize(
    "target",
    [{"num_key_value_heads": 1}, {"hidden_size": 20}, {"num_attention_heads": 2, "hidden_size": 24, "layers": 3}],
)
def test_sizes_between_rounds_can_be_expressed(tmp_path, target):
    run = prune_run(tmp_path, target=target, rounds=2)
    schedule = sizes_per_round(run)
    assert schedule[-1] == recipe_sizes(run).cut
    for sizes in schedule:
        complete_keep(first_units(run.costs.sizes | sizes, run.costs), run.config, run.costs.family)


def test_a_target_that_keeps_everything_is_refused(tmp_path):
    for target in ({"layers": 4}, {"share": 1.0}):
        with pytest.raises(InputError, match="keeps every unit"):
            planned_keep(prune_run(tmp_path, target=target))


@pytest.mark.slow
def test_an_unknown_task_is_refused_before_anything_starts(tmp_path):
    section = {"by": "task:no_such_task", "target": {"layers": 3}}
    with pytest.raises(InputError, match="prune.by: 'no_such_task' is not a task of lm-eval"):
        run_recipe(recipe(tmp_path, prune=section, recover={}, rewrite=None))
    assert not (tmp_path / "run" / "score").exists()


def test_heads_are_cut_to_a_budget_by_numbers_that_divide_the_channels(tmp_path):
    run = prune_run(tmp_path, target={"share": 0.8, "axes": ["num_attention_heads", "intermediate_size"]})
    assert recipe_sizes(run).cut["num_attention_heads"] == 2


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ({"hidden_size": 24}, "num_attention_heads 2, num_key_value_heads 2, hidden_size 16"),
        ({"num_key_value_heads": 1}, "num_attention_heads 2, num_key_value_heads 1, hidden_size 16"),
        ({"hidden_size": 16, "num_key_value_heads": 1}, None),
        ({"layers": 2}, None),
    ],
)
def test_the_plan_says_who_will_not_run_the_result(tmp_path, target, nearest):
    described = prune.STAGE.describe(prune_run(tmp_path, target=target), "")
    assert ("CTranslate2 will not run it" in described) == (nearest is not None)
    assert nearest is None or nearest in described
