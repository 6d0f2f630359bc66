"""A search finds the share or weights with the least loss, on losses whose least is known."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.errors import InputError
from trl_prune.merging.plan import MergePlan
from trl_prune.merging.recipes import MergeRecipe
from trl_prune.merging.search import WeightSearch, check_searchable


def plan_of(recipe, count):
    models = tuple(Path(f"/model-{index}") for index in range(count))
    return MergePlan(MergeRecipe.load(recipe), models, Path("/base") if MergeRecipe.load(recipe).takes_base else None)


def search(plan, loss, **settings):
    """Run a search whose candidates are named by their weights instead of written."""
    written = []

    def write(candidate):
        weights = candidate.parameters.get("weight") or [1 - candidate.parameters["t"], candidate.parameters["t"]]
        written.append(weights)
        return Path("/" + ",".join(map(str, weights)))

    def of(folder):
        if folder in plan.models:
            index = plan.models.index(folder)
            return loss([float(index == other) for other in range(len(plan.models))])
        weights = list(map(float, folder.name.split(",")))
        return loss([weight / sum(weights) for weight in weights])

    return WeightSearch(of, **settings).run(plan, write), written


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 1), st.sampled_from(["slerp", "linear"]))
def test_the_share_of_two_models_is_near_the_best(best, recipe):
    result, written = search(plan_of(recipe, 2), lambda weights: (weights[1] - best) ** 2, grid=5, refine=10)
    found = result.plan.parameters
    share = found["t"] if "t" in found else found["weight"][1]
    assert share == pytest.approx(best, abs=0.02)
    assert len(written) <= 3 + 11


def test_a_model_alone_is_kept_if_no_merge_is_better():
    result, _ = search(plan_of("slerp", 2), lambda weights: weights[0])
    assert result.plan.parameters == {"t": 1.0}
    assert result.record["kept"] == "/model-1"
    result, _ = search(plan_of("ties", 3), lambda weights: 1 - weights[2])
    assert (result.plan.recipe.name, result.plan.base) == ("linear", None)
    assert result.plan.parameters == {"weight": [0.0, 0.0, 1.0]}


def test_models_join_while_the_loss_falls():
    target = [0.5, 0.0, 0.5]
    result, written = search(
        plan_of("linear", 3), lambda weights: sum((a - b) ** 2 for a, b in zip(weights, target, strict=True))
    )
    assert result.plan.parameters["weight"] == [1.0, 0.0, 1.0]
    assert [1.0, 1.0, 1.0] in written


def test_the_curve_has_the_models_alone_and_every_candidate():
    result, written = search(plan_of("slerp", 2), lambda weights: abs(weights[1] - 0.4), grid=3, refine=0)
    assert result.record["curve"] == [
        {"model": "/model-0", "loss": 0.4},
        {"model": "/model-1", "loss": pytest.approx(0.6)},
        {"candidate": "t=0.5", "loss": pytest.approx(0.1)},
    ]
    assert result.record["over"] == "t"
    assert written == [[0.5, 0.5]]


def test_the_weights_of_a_recipe_with_t_and_weight_are_searched(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(
        "merge_method: linear\nmodels:\n- {model: $model, parameters: {weight: '${weight:-1}'}}\n"
        "parameters: {t: '${t:-0.5}'}\n"
    )
    check_searchable(MergeRecipe.load(str(path)), 2, {"t": 0.3})
    result, _ = search(plan_of(str(path), 2), lambda weights: (weights[1] - 0.25) ** 2)
    assert result.record["over"] == "weight"
    assert result.plan.parameters == {"weight": [0.75, 0.25]}


@pytest.mark.parametrize(
    ("recipe", "count", "parameters", "message"),
    [
        ("karcher", 2, {}, "has neither a single `t` nor a `weight` to search"),
        ("gradient_slerp", 2, {}, "has neither a single `t`"),
        ("slerp", 3, {}, "of 3 models has neither"),
        ("slerp", 2, {"t": 0.5}, "t is given and searched for too"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(recipe, count, parameters, message):
    with pytest.raises(InputError) as error:
        check_searchable(MergeRecipe.load(recipe), count, parameters)
    assert message in str(error.value)
