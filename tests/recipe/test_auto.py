import pytest

from trl_prune.errors import InputError
from trl_prune.recipe import Recipe
from trl_prune.recipe.auto import ARGS, DISTILLED_FROM, MINUTES, PEFT, VALIDATION, with_auto
from trl_prune.recipe.loading import load_recipe, parse_recipe


MINIMAL = {
    "model": "dense",
    "dataset": {"path": "rows.jsonl"},
    "output": "out",
    "prune": {"target": {"layers": 24}},
    "recover": "auto",
}


def test_a_recipe_that_names_a_model_rows_and_a_size_is_enough():
    recipe = Recipe.model_validate(MINIMAL)
    assert list(recipe.recover) == ["repaired", "recovered"]
    first, arm = recipe.recover.values()
    assert (first.method, first.data, first.peft, first.validation) == ("local_kd", "text", None, VALIDATION)
    assert first.minutes + arm.minutes == MINUTES
    assert (arm.init, arm.method, arm.data, arm.tokens) == ("repaired", "kd", "text", None)
    assert (arm.args, arm.peft, arm.validation) == (ARGS, PEFT, VALIDATION)
    assert recipe.rewrite is None
    assert (recipe.prune.by, recipe.prune.strategy, recipe.prune.as_repaired) == ("kl", "contiguous", "auto")
    assert recipe.score.rows_per_text == [1, 8]


@pytest.mark.parametrize(
    "prune",
    [
        {"target": {"layers": 24, "hidden_size": 512}},
        {"target": {"share": 0.8, "axes": ["intermediate_size"]}},
        {"keep": {"num_hidden_layers": [0], "hidden_size": [0]}},
    ],
)
def test_where_more_than_blocks_is_cut_nothing_is_repaired_first(prune):
    recipe = Recipe.model_validate(MINIMAL | {"prune": prune})
    (arm,) = recipe.recover.values()
    assert recipe.score.rows_per_text == [1]
    assert recipe.prune.by == ("angular_distance" if "keep" in prune else "auto")
    assert (arm.init, arm.method, arm.minutes) == ("pruned", "sft", MINUTES)


def test_blocks_are_chosen_as_the_recipe_says():
    for prune in ({"target": {"layers": 24}, "by": "deepest"}, {"keep": {"num_hidden_layers": [0]}}):
        recipe = Recipe.model_validate(MINIMAL | {"prune": prune})
        assert recipe.prune.by in ("deepest", "angular_distance")
        assert recipe.score.rows_per_text == [1]
    in_rounds = Recipe.model_validate(MINIMAL | {"prune": {"target": {"layers": 24}, "rounds": 2}}).prune
    assert (in_rounds.by, in_rounds.strategy) == ("auto", "greedy")


@pytest.mark.parametrize(
    ("score", "rows_per_text"),
    [({"samples": 9}, [1, 8]), ({"rows_per_text": 4}, [4]), ({"dataset": "generated"}, [1])],
)
def test_blocks_are_chosen_on_the_recipes_texts(score, rows_per_text):
    recipe = Recipe.model_validate(MINIMAL | {"score": score})
    assert (recipe.prune.by, recipe.score.rows_per_text) == ("kl", rows_per_text)


def test_an_arm_of_ones_own_leaves_the_blocks_and_what_others_need():
    arms = {"own": {"method": "auto", "data": "text"}}
    recipe = Recipe.model_validate(MINIMAL | {"recover": arms})
    assert (recipe.prune.by, recipe.rewrite) == ("angular_distance", None)


def test_what_the_recipe_says_goes_first():
    arms = {
        "short": {"method": "auto", "tokens": 500, "args": {"learning_rate": 1e-5}},
        "epochs": {"method": "auto", "data": "references", "args": {"num_train_epochs": 2}},
        "sft": {"data": "references"},
    }
    recipe = Recipe.model_validate(MINIMAL | {"recover": arms, "rewrite": {"max_new_tokens": 7}})
    short, epochs, sft = recipe.recover.values()
    assert (short.method, short.tokens, short.minutes) == ("sft", 500, None)
    assert short.args == ARGS | {"learning_rate": 1e-5}
    assert (epochs.data, epochs.minutes) == ("references", None)
    assert (sft.method, sft.args) == ("sft", {})
    assert recipe.rewrite.max_new_tokens == 7
    unlimited = Recipe.model_validate(MINIMAL | {"recover": {"a": {"method": "auto", "args": {"max_steps": -1}}}})
    assert unlimited.recover["a"].minutes == MINUTES


def test_rewritten_answers_are_trained_on_where_the_recipe_rewrites():
    recipe = Recipe.model_validate(MINIMAL | {"rewrite": {}})
    assert [arm.data for arm in recipe.recover.values()] == ["text", "rewritten"]


@pytest.mark.parametrize(("tokens", "method"), [(DISTILLED_FROM - 1, "sft"), (DISTILLED_FROM, "kd")])
def test_a_long_training_distils(tokens, method):
    recipe = Recipe.model_validate(MINIMAL | {"recover": {"own": {"method": "auto", "tokens": tokens}}})
    assert recipe.recover["own"].method == method


def test_a_recipe_that_is_written_out_is_the_same_recipe():
    recipe = Recipe.model_validate(MINIMAL)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("values", [[], None, "auto", {"recover": 3}, {"recover": ["auto"]}, {"recover": {"a": 3}}])
def test_values_of_other_types_are_left_to_validation(values):
    assert with_auto(values) == values


@pytest.mark.parametrize(
    ("arm", "sentence"),
    [
        ({"method": "auto", "args": 3}, "recover.own.args is 3"),
        ({"method": "auto", "tokns": 3}, "unknown key 'recover.own.tokns'"),
        ({"method": "automatic"}, "recover.own.method is 'automatic'"),
        ({"tokens": 10, "minutes": 2}, "recover.own has `minutes` and `tokens`, which are two budgets"),
        ({"minutes": 2, "args": {"max_steps": 3}}, "recover.own has `minutes` and `args.max_steps`"),
        ({"rows": 8, "validation": 8}, "recover.own has 8 rows for `validation` of its 8 `rows`"),
        ({"minutes": 0}, "recover.own.minutes is 0"),
        ({"minutes": float("inf")}, "recover.own.minutes is inf"),
        ({"minutes": 2, "args": {"num_train_epochs": 1}}, "recover.own has `minutes` and `args.num_train_epochs`"),
        ({"method": "kd", "minutes": 2, "args": {"lmbda": 0.5}}, "has `minutes` and `args.lmbda`"),
        ({"validation": 2, "args": {"loss_type": "dft"}}, "has `validation`, .* and `args.loss_type: dft`"),
        ({"validation": 2, "args": {"label_smoothing_factor": 0.1}}, "and `args.label_smoothing_factor: 0.1`"),
        ({"method": "auto", "tokens": "many"}, "recover.own.tokens is 'many'"),
        ({"method": "auto", "args": []}, r"recover.own.args is \[\]"),
    ],
)
def test_a_wrong_arm_is_one_sentence(arm, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_recipe(MINIMAL | {"rewrite": {}, "recover": {"own": arm}}, "recipe.yaml")


def test_auto_may_come_from_the_command_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndataset: {path: rows.jsonl}\noutput: out\nprune: {target: {layers: 2}}\n")
    assert load_recipe(path, ["recover=auto"]).recover["recovered"].method == "kd"
    recipe = load_recipe(path, ["recover=auto", "recover.recovered.minutes=5"])
    arm = recipe.recover["recovered"]
    assert (arm.method, arm.minutes, recipe.prune.by) == ("kd", 5, "kl")
    with pytest.raises(InputError, match="recover is 'Auto'; wanted: 'auto', or arms by name"):
        load_recipe(path, ["recover=Auto"])


def test_validation_of_wrapped_rows_is_not_in_a_cache():
    arm = {"method": "kd", "data": "references", "validation": 2, "args": {"packing_strategy": "wrapped"}}
    with pytest.raises(InputError, match="has `validation` and `packing_strategy: wrapped`"):
        parse_recipe(MINIMAL | {"cache_teacher": {}, "recover": {"own": arm}}, "recipe.yaml")


@pytest.mark.parametrize(("key", "value"), [("minutes", 3), ("tokens", 3), ("validation", 3)])
def test_the_search_sets_the_length_of_its_trainings(key, value):
    search = {"budget": {"share": 0.8}, "candidates": 2, "rungs": [10, 20], "train": {key: value}}
    recipe = MINIMAL | {"search": search, "prune": {"by": "search"}, "recover": {}}
    with pytest.raises(InputError, match=f"search.train has `{key}`"):
        parse_recipe(recipe, "recipe.yaml")
