"""The `select` section: which selections a recipe makes, and its mistakes."""

from typing import get_args

import pytest

from trl_prune.data.selection.budget import ALLOCATIONS
from trl_prune.data.selection.consistency import CONSISTENCY
from trl_prune.data.selection.methods import METHODS
from trl_prune.data.selection.paser import COSTS, ORDERS, RANKINGS, PaserSettings
from trl_prune.errors import InputError
from trl_prune.recipe import SelectionSection, parse_recipe


BASE = {"model": "m", "dataset": {"path": "d.jsonl"}, "output": "o", "prune": {"target": {"layers": 3}}}


def parse(**sections):
    return parse_recipe(BASE | sections, "r.yaml")


def test_random_rows_are_always_selected_beside():
    selections = parse(select={"budget": 0.1}).selections
    assert {name: (one.method, one.budget) for name, one in selections.items()} == {
        "paser": ("paser", 0.1),
        "random": ("random", 0.1),
    }
    assert list(parse(select={"method": "random"}).selections) == ["random"]
    assert parse().selections == {}


def test_arms_and_the_section_name_further_selections():
    recipe = parse(
        select={"budget": 0.1, "cost": "none", "selections": {"again": {"method": "random", "seed": 1}}},
        recover={"a": {"data": "references", "selection": "again"}, "b": {"data": "references", "selection": "full"}},
    )
    assert list(recipe.selections) == ["paser", "random", "again", "full"]
    again = recipe.selections["again"]
    assert (again.method, again.seed, again.budget, again.cost) == ("random", 1, 0.1, "none")


def test_off_may_be_written_as_yaml_reads_it():
    assert parse(select={"consistency": False}).select.consistency == "off"


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"select": {"budget": 0}}, r"select.budget is 0; wanted: a share above 0 and up to 1.0, or a number of rows"),
        ({"select": {"budget": 1.5}}, "select.budget is 1.5; wanted"),
        ({"select": {"budget": True}}, "select.budget is True; wanted"),
        ({"select": {"budget": "many"}}, "select.budget is 'many'; wanted"),
        ({"select": {"clusters": 0}}, "select.clusters is 0; wanted: auto, or a number of clusters from 1"),
        ({"select": {"near_duplicates": 95}}, "select.near_duplicates is 95; wanted: auto, null, or a cosine"),
        ({"select": {"method": "pasr"}}, "select.method is 'pasr'; wanted: 'paser'"),
        ({"select": {"fraction": 0.1}}, "did you mean 'select.budget'"),
        ({"select": {"selections": {"r": {"budget": 0}}}}, "select.selections.r.budget is 0; wanted"),
        ({"select": {"selections": {"r": {"metod": "random"}}}}, "did you mean 'select.selections.r.method'"),
        ({"select": {"selections": {"random": {"method": "longest"}}}}, "'random' is a method, so rename it"),
        ({"select": {"selections": {"paser": {}}}}, "selections has 'paser', the name of the section's own"),
        ({"select": {"method": "random_matched"}}, "matches the lengths of the section's own"),
        ({"select": {"method": "rds"}}, "has `method: rds` and no `target`"),
        (
            {"select": {}, "recover": {"a": {"selection": "x", "data": "references"}}},
            "is 'x'; allowed: paser",
        ),
        ({"select": {}, "recover": {"a": {"selection": "rds", "data": "references"}}}, "select.target"),
        ({"recover": {"a": {"selection": "random", "data": "references"}}}, "the recipe has no `select` section"),
    ],
)
def test_mistakes_get_one_sentence(sections, sentence):
    with pytest.raises(InputError, match=sentence):
        parse(**sections)


def test_names_and_defaults_are_those_of_the_registries():
    def choices(name):
        return set(get_args(SelectionSection.model_fields[name].annotation))

    assert choices("method") == set(METHODS)
    assert choices("allocation") == set(ALLOCATIONS)
    assert choices("ranking") == set(RANKINGS)
    assert choices("cost") == set(COSTS)
    assert choices("consistency") == set(CONSISTENCY)
    assert choices("order") == set(ORDERS)
    defaults, ours = PaserSettings(), SelectionSection()
    for name in ("allocation", "ranking", "cost", "consistency", "order"):
        assert getattr(ours, name) == getattr(defaults, name)
    assert ours.allocation_temperature == defaults.temperature
