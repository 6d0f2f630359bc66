"""The rewrite stage: its checks, its files, and what it generates again after a change."""

import json

import pytest

from tests.recipes import recipe, recipe_values
from trl_prune.data.rewriting.provenance import read_records
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.stages import rewrite


def answers(run):
    """Return the stored answers by key."""
    lines = [
        line
        for path in (run.folder.stage_dir("rewrite") / rewrite.ANSWERS).glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return {json.loads(line)["key"]: line for line in lines}


def test_after_a_change_only_what_it_affects_is_generated(tmp_path):
    values = recipe_values(tmp_path)
    first = run_recipe(parse_recipe(values, "test"), ["rewrite"])
    before = answers(first)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    changed = json.loads(rows[0])
    changed["prompt"][0]["content"] = "Something else?"
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(changed), *rows[1:]]))
    values["rewrite"] |= {"batch_size": 5, "thoughts": "keep"}
    second = run_recipe(parse_recipe(values, "test"), ["rewrite"])
    after = answers(second)
    assert before.items() < after.items()
    assert len(after) == len(before) + 1
    records = read_records(second.folder.output("rewrite", "provenance"))
    assert [record.row for record in records] == list(range(len(rows)))
    assert records[0].hash not in before


def test_another_server_address_leaves_the_result_valid(tmp_path):
    section = {"engine": "server", "engine_kwargs": {"url": "http://one/v1", "model": "m"}}
    values = recipe_values(tmp_path)
    one, two, other = (
        Run(parse_recipe(values | {"rewrite": section | {"engine_kwargs": section["engine_kwargs"] | change}}, "test"))
        for change in ({}, {"url": "http://two/v1", "concurrency": 3}, {"model": "other"})
    )
    for run in (one, two, other):
        run.dtype = "float32"
    assert rewrite.settings(one, "") == rewrite.settings(two, "") != rewrite.settings(other, "")


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"answer_type": "maths"}, "rewrite.answer_type is 'maths'.*did you mean 'math'"),
        ({"answer_types": {"mine": {"user": "x"}}}, "rewrite.answer_types.mine.user lacks {instruction} and"),
        ({"engine": "server"}, "rewrite.engine_kwargs of the engine 'server': url must be given"),
        ({"engine_kwargs": {"continous": True}}, "did you mean 'continuous'"),
    ],
)
def test_mistakes_are_found_before_anything_is_generated(tmp_path, section, sentence):
    with pytest.raises(InputError, match=sentence):
        rewrite.check(Run(recipe(tmp_path, rewrite=section)))
