"""Which repairs a recipe's cut gets."""

from tests.recipes import prune_run
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.runs.pruning_plan import planned_keep
from trl_prune.runs.repairs import calibration_tokens, omitted_repairs, recipe_repairs


def test_repairs_need_enough_calibration_tokens(tmp_path):
    depth, width = prune_run(tmp_path, target={"layers": 3}), prune_run(tmp_path, target={"intermediate_size": 40})
    tokens = calibration_tokens(depth)
    assert tokens >= 320
    assert list(recipe_repairs(depth, Cut.of(depth.config, planned_keep(depth)))) == ["linear_map"]
    cut = Cut.of(width.config, planned_keep(width))
    few = prune_run(tmp_path, target={"intermediate_size": 40})
    few.recipe = few.recipe.model_copy(update={"score": few.recipe.score.model_copy(update={"samples": 2})})
    assert list(recipe_repairs(width, cut)) == ["least_squares"]
    assert recipe_repairs(few, cut) == {}
    assert omitted_repairs(few, cut) == (
        f"no least_squares: {calibration_tokens(few)} calibration tokens, 480 required (`score.samples`)"
    )
