"""The synthesize stage: rows that the dense model writes, and what reads them."""

import json

import pytest

from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.stages import synthesize


# A random model ends a text of 200 tokens about every other time, if it draws each at random.
SECTION = {"max_prompt_tokens": 200, "max_new_tokens": 200, "temperature": 1.0, "prompt_temperature": 1.0}


def values_of(folder, rows=4, **section):
    values = recipe_values(folder) | {"dataset": {"synthesize": rows}, "synthesize": SECTION | section}
    del values["rewrite"]
    values["recover"] = {"sft": values["recover"]["sft"]}
    return values


def test_arms_train_on_the_rows_that_the_dense_model_wrote(tmp_path):
    values = parse_recipe(values_of(tmp_path), "test")
    lines = list(plan(values, ["recover"]))
    assert any("dataset synthesized: 4 rows, prompt + completion" in line for line in lines)
    run = run_recipe(values, ["recover"])
    written = [json.loads(line) for line in run.folder.output("synthesize", "rows").read_text().splitlines()]
    assert run.dataset.to_list() == written
    assert len(written) == 4
    assert run.dataset_fingerprint in run.folder.result("recover", "sft").inputs.values()
    assert [line for line in plan(values, ["recover"]) if line.startswith("  run")] == []
    assert run_recipe(values, ["synthesize"]).dataset.to_list() == written


def test_the_largest_number_is_written_and_smaller_datasets_are_drawn_from_it(tmp_path):
    values = values_of(tmp_path, rows=2) | {"score": {"dataset": {"synthesize": 3}, "samples": 3, "batch_size": 1}}
    run = run_recipe(parse_recipe(values, "test"), ["synthesize"])
    three = run.rows(run.recipe.score.dataset).to_list()
    assert (len(three), len(run.dataset)) == (3, 2)
    assert all(row in three for row in run.dataset.to_list())


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({"synthesize": 0}, "dataset.rows is 0"),
        ({"synthesize": 5, "path": "rows.jsonl"}, "dataset has `synthesize`.*and `path`"),
        ({"path": "synthesized"}, "dataset requires `rows`"),
    ],
)
def test_wrong_datasets_are_said(tmp_path, dataset, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_recipe(values_of(tmp_path) | {"dataset": dataset}, "test")


def test_a_template_without_an_end_of_turn_is_said_before_anything_is_generated(tmp_path):
    values = parse_recipe(values_of(tmp_path), "test")
    path = tmp_path / "dense" / "chat_template.jinja"
    path.write_text("{% for message in messages %}<|im_start|>{{ message.content }}\n{% endfor %}")
    with pytest.raises(InputError, match=r"dataset.synthesize: .* ends a user's turn with"):
        run_recipe(values, ["synthesize"])


def test_a_recipe_without_such_a_dataset_has_nothing_to_write(tmp_path):
    values = parse_recipe(recipe_values(tmp_path), "test")
    assert synthesize.parts(Run(values).recipe) == []
    with pytest.raises(InputError, match="`synthesize` section names nothing to do"):
        run_recipe(values, ["synthesize"])
