"""Arms: mixes of sources, numbers of rows, and sweeps over them."""

import json

import pytest

from trl_prune.errors import InputError
from trl_prune.recipe import load_recipe, parse_recipe
from trl_prune.recipe.recover import ArmSection


BASE = {
    "model": "m",
    "dataset": {"path": "d.jsonl"},
    "output": "runs/x",
    "prune": {"target": {"layers": 3}},
    "rewrite": {},
}
MIX = [
    {"source": "rewritten", "share": 0.7},
    {"source": "references", "share": 0.2},
    {"source": "text", "dataset": {"path": "wiki.jsonl"}, "share": 0.1},
]


def parse(arms, **sections):
    return parse_recipe(BASE | sections | {"recover": arms}, "test")


@pytest.mark.parametrize(
    ("arm", "prune", "message"),
    [
        ({}, {"target": {"layers": 3, "hidden_size": 8}}, "is for removed blocks, and `prune` also cuts hidden_size"),
        ({}, {"target": {"share": 0.5, "axes": ["intermediate_size"]}}, "`prune` also cuts intermediate_size"),
        ({}, {"keep": {"num_hidden_layers": [0], "hidden_size": [0, 1]}}, "`prune` also cuts hidden_size; use kd"),
    ],
)
def test_local_distillation_is_for_removed_blocks(arm, prune, message):
    local = {"local": {"method": "local_kd", "data": "text"}}
    assert parse(local).recover["local"].has_teacher
    with pytest.raises(InputError, match=message):
        parse({"local": local["local"] | arm}, **({"prune": prune} if prune else {}))


def test_rows_that_another_arm_trained_on_do_not_measure_what_goes_on_from_it():
    first = {"data": "references", "rows": 40}
    for change, fits in (({}, False), ({"validation": 8}, True), ({"validation": 8, "args": {"seed": 1}}, False)):
        arms = {"first": first | change, "second": first | {"init": "first", "validation": 8}}
        if fits:
            recipe = parse(arms)
            assert recipe.lineage("second") == ["first", "second"]
            assert recipe.recover["second"].starts_from_arm
            continue
        with pytest.raises(InputError, match=r"recover.first, from which it starts, may have trained on those rows"):
            parse(arms)


def test_an_arm_of_one_source_is_a_mix_of_share_one():
    arm = ArmSection(data="text")
    assert [(source.source, source.share) for source in arm.sources] == [("text", 1.0)]
    assert not arm.is_mix
    assert arm.data_label == "text"


def test_a_mix_names_its_sources_and_their_datasets():
    recipe = parse({"mix": {"data": MIX}})
    arm = recipe.recover["mix"]
    assert arm.is_mix
    assert arm.uses_rewritten
    assert arm.data_label == "70 % rewritten + 20 % references + 10 % text of wiki.jsonl"
    assert [section.path for section in recipe.datasets] == ["d.jsonl", "wiki.jsonl"]
    several = parse(mix({"source": "text", "share": 1.0, "rows_per_text": 8})).recover["mix"]
    assert several.data_label == "100 % text, 8 rows in a text"
    assert "rows_per_text" not in str(arm.model_dump())


def mix(*sources, **options):
    return {"mix": {"data": list(sources)} | options}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (mix(MIX[0], MIX[1]), "recover.mix.data has shares that sum to 0.9; wanted: shares of the rows that sum to 1"),
        (mix(), "recover.mix.data has shares that sum to 0; wanted: shares of the rows that sum to 1"),
        (
            mix(MIX[0] | {"share": 1, "dataset": {"path": "a.jsonl"}}),
            "recover.mix.data has the source `rewritten` with the dataset 'a.jsonl'; only the recipe's own dataset",
        ),
        (mix(MIX[0] | {"share": 0}), "recover.mix.data.0.share is 0; wanted: greater than 0"),
        (mix(MIX[0], {"source": "wiki", "share": 0.3}), "recover.mix.data.1.source is 'wiki'; wanted: 'references'"),
        (
            mix(MIX[0], {"source": "text", "weight": 0.3}),
            "unknown key 'recover.mix.data.1.weight'; did you mean 'recover.mix.data.1.share'?",
        ),
        (
            mix(MIX[0], {"source": "text", "path": "a"}),
            "unknown key 'recover.mix.data.1.path'; did you mean 'recover.mix.data.1.dataset.path'?",
        ),
        (
            mix(MIX[0] | {"share": 1, "rows_per_text": 8}),
            "recover.mix.data.0 has `rows_per_text`, which is for `source: text`, and `source: rewritten`",
        ),
        (mix(*MIX, args={"completion_only_loss": True}), "whose sources say which tokens the loss is on"),
        ({"a": {"data": 3}}, "recover.a.data is 3; wanted: 'references', 'rewritten' or 'text'"),
        ({"a": {"rows": 3, "sweep": {"rows": [3]}}}, "recover.a has both `rows` and `sweep`"),
        ({"a": {"sweep": {"rows": []}}}, "recover.a.sweep.rows is []"),
        ({"a": {"sweep": {"rows": [3, 3]}}}, "recover has a number twice in a.sweep.rows: [3, 3]"),
        (
            {"a-3": {}, "a": {"sweep": {"rows": [3]}}},
            "recover has the arm 'a-3' twice, one of them from a sweep; rename one",
        ),
        (
            {"a": {"sweep": {"rows": [3]}}, "a-3": {}},
            "recover has the arm 'a-3' twice, one of them from a sweep; rename one",
        ),
    ],
)
def test_what_no_arm_can_train_on_is_one_sentence(arms, message):
    with pytest.raises(InputError) as error:
        parse(arms)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_shares_may_be_rounded():
    thirds = [{"source": name, "share": 1 / 3} for name in ("rewritten", "references", "text")]
    assert len(parse(mix(*thirds)).recover["mix"].sources) == 3


def test_an_error_inside_a_mix_names_its_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    text = (
        json.dumps(BASE)[:-1] + ', "recover": {"mix": {"data": [\n{"source": "text", "share": 0.5},\n{"share": 2}]}}}'
    )
    path.write_text(text)
    with pytest.raises(InputError, match="line 3: "):
        load_recipe(path, [])


def test_mixes_and_the_teachers_cache_exclude_each_other():
    arm = {"mix": {"method": "kd", "data": MIX}}
    with pytest.raises(InputError, match="recover.mix trains on a mix, which the teacher's cache does not hold"):
        parse(arm, cache_teacher={})
    assert parse(arm).recover["mix"].method == "kd"
    arm["mix"]["teacher_cache"] = False
    assert not parse(arm, cache_teacher={}).cached_arms


def test_a_mix_with_rewritten_rows_needs_the_stage():
    values = BASE | {"recover": mix(*MIX)}
    del values["rewrite"]
    with pytest.raises(InputError, match="recover.mix trains on rewritten data but the recipe has no `rewrite`"):
        parse_recipe(values, "test")


def test_a_sweep_becomes_one_arm_for_each_number_of_rows():
    recipe = parse({"first": {}, "sft": {"data": "references", "sweep": {"rows": [4, 2]}, "tokens": 9}, "last": {}})
    assert list(recipe.recover) == ["first", "sft-4", "sft-2", "last"]
    assert recipe.recover["sft-2"] == ArmSection(data="references", rows=2, tokens=9)
    assert recipe.models[2:] == list(recipe.recover)
    assert parse_recipe(recipe.model_dump(mode="json"), "test") == recipe


def test_arms_without_the_newer_keys_are_written_as_before():
    assert list(ArmSection().model_dump()) == ["method", "data", "init", "teacher_cache", "tokens", "args", "peft"]
    assert ArmSection(rows=3).model_dump(mode="json")["rows"] == 3
