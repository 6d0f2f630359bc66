"""Recipes are mergekit's YAML before and after they are filled, and a wrong value is one sentence."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.errors import InputError
from trl_prune.merging.recipes import MergeRecipe, shipped_recipes, write_config


MODELS = [Path("/runs/x/sft"), Path("/runs/x/kd")]


def recipe(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_filled_recipe_has_no_placeholder_left_and_reads_as_yaml(name):
    loaded = MergeRecipe.load(name)
    filled = loaded.fill(MODELS, Path("/runs/x/pruned") if loaded.takes_base else None, "bfloat16", {})
    text = write_config(filled)
    assert "$" not in text
    assert yaml.safe_load(text) == filled
    assert [entry["model"] for entry in filled["models"]] == list(map(str, MODELS))
    assert filled["dtype"] == "float32"
    assert filled["out_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_header_of_a_recipe_names_its_placeholders(name):
    text = (Path(__file__).parents[2] / "mergekit_recipes" / f"{name}.yaml").read_text()
    header = text[: text.index("merge_method")]
    loaded = MergeRecipe.load(name)
    for placeholder in loaded.placeholders.keys() - {"dtype"}:
        prefix = "" if placeholder in loaded.parameters else "$"
        assert f"{prefix}{placeholder}" in header
    assert "arXiv" in header or "https://" in header


@given(st.lists(st.integers(0, 10), min_size=2, max_size=5))
def test_a_list_has_a_value_for_each_model_and_a_number_is_that_of_all(weights):
    models = [Path(f"/model-{index}") for index in range(len(weights))]
    filled = MergeRecipe.load("linear").fill(models, None, "float32", {"weight": weights})
    assert [entry["parameters"]["weight"] for entry in filled["models"]] == weights
    filled = MergeRecipe.load("linear").fill(models, None, "float32", {"weight": weights[0]})
    assert {entry["parameters"]["weight"] for entry in filled["models"]} == {weights[0]}


def test_a_list_outside_the_models_is_one_value():
    filled = MergeRecipe.load("gradient_slerp").fill(MODELS, None, "float32", {"attention_t": [0, 0.5, 1]})
    assert filled["parameters"]["t"][0] == {"filter": "attn", "value": [0, 0.5, 1]}


def test_a_recipe_of_the_users_has_the_same_placeholders(tmp_path):
    text = "merge_method: ties\nbase_model: $base\nmodels:\n- {model: $model, parameters: {weight: $share}}\n"
    loaded = MergeRecipe.load(recipe(tmp_path, text))
    assert loaded.parameters == ["share"]
    filled = loaded.fill(MODELS, Path("/base"), "float32", {"share": [1, 2]})
    assert [entry["parameters"]["weight"] for entry in filled["models"]] == [1, 2]
    with pytest.raises(InputError, match=r"has the placeholder \$share, which is not given"):
        loaded.check(2, True, {})


@pytest.mark.parametrize(
    ("name", "count", "has_base", "parameters", "message"),
    [
        ("slerp", 2, False, {"tt": 0.5}, "the merge recipe 'slerp' has no parameter 'tt'; did you mean 't'?"),
        ("karcher", 2, False, {"weight": 1}, "has no parameter 'weight'; allowed: max_iter, tol"),
        ("slerp", 2, False, {"t": 1.5}, "t of the merge recipe 'slerp' is 1.5; wanted: a number from 0 to 1"),
        ("slerp", 2, False, {"t": True}, "is True; wanted: a number from 0 to 1"),
        ("gradient_slerp", 2, False, {"mlp_t": [0, 2]}, "mlp_t of the merge recipe 'gradient_slerp' is 2; wanted"),
        ("ties", 2, True, {"density": 0}, "is 0; wanted: a number from 0 (excluded) to 1"),
        ("linear", 2, False, {"weight": float("nan")}, "weight of the merge recipe 'linear' is nan; wanted: a finite"),
        (
            "linear",
            2,
            False,
            {"weight": "abc"},
            "weight of the merge recipe 'linear' is 'abc'; wanted: a finite",
        ),
        ("linear", 2, False, {"weight": [1, True]}, "is True; wanted: a finite number"),
        ("ties", 2, True, {"lambda": None}, "lambda of the merge recipe 'ties' is None; wanted: a finite number"),
        ("karcher", 2, False, {"tol": "small"}, "tol of the merge recipe 'karcher' is 'small'; wanted: a finite"),
        ("linear", 2, False, {"weight": [1, -1]}, "weight is [1, -1]; wanted: a positive sum, which linear divides"),
        ("nuslerp", 3, False, {}, "the merge recipe 'nuslerp' merges 2 models, and 3 are given"),
        ("linear", 1, False, {}, "the merge recipe 'linear' merges 2 or more models, and 1 are given"),
        ("slerp", 3, False, {"t": 0.5}, "t is given for 3 models; slerp merges more than two one after the other"),
        ("ties", 2, False, {}, "the merge recipe 'ties' needs `base`, the pruned model"),
        ("slerp", 2, True, {}, "the merge recipe 'slerp' takes no `base`"),
    ],
)
def test_what_does_not_fit_a_recipe_is_one_sentence(name, count, has_base, parameters, message):
    with pytest.raises(InputError) as error:
        MergeRecipe.load(name).check(count, has_base, parameters)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [", "is not YAML"),
        ("- 1", "has no `merge_method`"),
        ("merge_method: linear\nmodels: [{model: a}]", "names no model as $model"),
        ("merge_method: linear\nmodels: [{model: $model}]\ntokenizer_source: union", "has the key 'tokenizer_source'"),
    ],
)
def test_a_recipe_that_is_no_merge_is_one_sentence(text, message, tmp_path):
    with pytest.raises(InputError) as error:
        MergeRecipe.load(recipe(tmp_path, text))
    assert message in str(error.value)


def test_an_unknown_recipe_is_one_sentence():
    with pytest.raises(InputError, match="recipe 'slrp' is neither shipped nor a file; did you mean 'slerp'"):
        MergeRecipe.load("slrp")
    with pytest.raises(InputError, match="allowed: dare_ties, gradient_slerp, .*, or a path"):
        MergeRecipe.load("xyz")


def test_a_list_of_another_length_is_one_sentence():
    with pytest.raises(InputError, match=r"weight is \[1, 2, 3\]; wanted: one number, or one for each of the 2"):
        MergeRecipe.load("linear").fill(MODELS, None, "float32", {"weight": [1, 2, 3]})
