"""Which rows the stages after `select` take from its result."""

import json

import pytest

from tests.stages.test_select import values
from trl_prune.errors import InputError
from trl_prune.recipe import parse_recipe
from trl_prune.runs.artifacts import StageOutput, config_hash
from trl_prune.runs.context import Run
from trl_prune.runs.selected_rows import (
    SELECTIONS,
    count_to_rewrite,
    indices_to_rewrite,
    planned_count,
    positions_in_rewritten,
    selected_rows,
)


CHOSEN = {"paser": [1, 4, 8], "random": [4, 5]}


def run_with(folder, arms=None, **section):
    """Return a run over 36 rows whose `select` section has a budget of 9."""
    found = values(folder, **section)
    selfd = found["recover"]["selfd"]
    return Run(
        parse_recipe(found | {"recover": {name: selfd | arm for name, arm in (arms or {"arm": {}}).items()}}, "")
    )


def finish(run, stage, inputs, name, content):
    """Write a stage's result with one file."""
    folder = run.folder.begin(stage, "", inputs, {})
    (folder / name).write_text(content)
    run.folder.finish(stage, "", StageOutput({name.partition(".")[0]: name}))


def select(run, chosen):
    finish(run, "select", {}, f"{SELECTIONS}.json", json.dumps(chosen))


@pytest.mark.parametrize(
    ("method", "budget", "count"),
    [(method, 9, 9) for method in ("paser", "equal", "random", "longest", "perplexity", "ifd", "rds")]
    + [("paser", 0.1, 4), ("paser", 0.001, 1), ("full", 9, 36)],
)
def test_a_budget_is_planned_as_rows_and_full_as_the_whole_dataset(tmp_path, method, budget, count):
    section = {"method": method, "budget": budget, "target": {"path": str(tmp_path / "rows.jsonl")}}
    assert planned_count(run_with(tmp_path, **section), method) == count


def test_random_rows_of_matched_lengths_are_as_many_as_the_sections_own(tmp_path):
    matched = {"matched": {"method": "random_matched", "budget": 30}}
    run = run_with(tmp_path, {"arm": {"selection": "random_matched"}}, selections=matched)
    assert planned_count(run, "matched") == planned_count(run, "random_matched") == 9
    assert planned_count(run_with(tmp_path, selections=matched, method="full"), "matched") == 36


def test_a_budget_above_the_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="budget is 37 rows, and there are 36 to choose from"):
        planned_count(run_with(tmp_path, budget=37), "paser")


def test_the_rows_of_all_rewritten_arms_are_rewritten_once(tmp_path):
    run = run_with(tmp_path, {"own": {}, "other": {"selection": "random"}, "sft": {"data": "references"}})
    select(run, CHOSEN)
    assert indices_to_rewrite(run) == [1, 4, 5, 8]
    assert count_to_rewrite(run) == 18
    finish(run, "rewrite", {"rows": config_hash([1, 4, 5, 8])}, "rows.jsonl", "")
    assert positions_in_rewritten(run, [4, 5]) == [1, 2]
    assert positions_in_rewritten(run, CHOSEN["paser"]) == [0, 1, 3]


def test_results_of_another_recipe_are_found(tmp_path):
    run = run_with(tmp_path, {"own": {}, "other": {"selection": "longest"}})
    select(run, CHOSEN)
    with pytest.raises(InputError, match="has no selection 'longest', only paser, random: run `trl-prune select`"):
        selected_rows(run, "longest")
    select(run, CHOSEN | {"longest": [0]})
    finish(run, "rewrite", {"rows": config_hash(CHOSEN["paser"])}, "rows.jsonl", "")
    with pytest.raises(InputError, match="rewrite has the rows of other selections: run `trl-prune rewrite` again"):
        positions_in_rewritten(run, [0])
