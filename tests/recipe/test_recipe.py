import pytest
import yaml

from trl_prune.errors import InputError
from trl_prune.quickstart import SIZES, quickstart_recipe
from trl_prune.recipe import Recipe, load_recipe, loading, parse_recipe
from trl_prune.recipe.messages import sections_in


MINIMAL = {"model": "m", "dataset": {"path": "d.jsonl"}, "output": "runs/x", "prune": {"target": {"layers": 3}}}
FULL = """\
model: someone/model
dataset: {path: rows.jsonl}
output: runs/x
prune:
  by: block_influence
  target:
    layers: 24
rewrite: {}
recover:
  selfd:
    method: sft
    data: rewritten
"""


def recipe_file(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers():
    recipe = parse_recipe(MINIMAL, "test")
    assert recipe.prune.by == "angular_distance"
    assert recipe.models == recipe.evaluated == ["dense", "pruned"]


def arms(cache=True, **options):
    sections = {"cache_teacher": {}} if cache else {}
    return MINIMAL | sections | {"recover": {"kd": {"method": "kd", "data": "references"} | options}}


def test_arms_that_distil_read_the_cache_where_there_is_one():
    assert list(parse_recipe(arms(), "test").cached_arms) == ["kd"]
    assert not parse_recipe(arms(teacher_cache=False), "test").cached_arms
    assert not parse_recipe(arms(cache=False), "test").cached_arms
    assert not parse_recipe(arms(method="sft"), "test").cached_arms


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (arms(cache=False, teacher_cache=True), "the recipe has no `cache_teacher` section"),
        (arms(method="sft", teacher_cache=True), "recover.kd.teacher_cache is for `method: kd`, not sft"),
        (arms(init="random"), "recover.kd.init is 'random'; allowed: pruned, random_units, random_weights"),
        (arms(init="x" * 5000), f"recover.kd.init is '{'x' * 199}...; allowed: pruned"),
        (arms(init="kd"), "recover.kd.init is 'kd'; that arm must come before it"),
        (arms() | {"cache_teacher": {"tier": "zip"}}, "cache_teacher.tier is 'zip'; wanted: 'sampled', 'topk' or"),
        (arms() | {"cache_teacher": {"draws": 65}}, "cache_teacher.draws is 65; wanted: less than or equal to 64"),
    ],
)
def test_a_cache_and_its_readers_fit(values, message):
    with pytest.raises(InputError) as error:
        parse_recipe(values, "test")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("by: block_influence", "by: blok"), "line 5: prune.by is 'blok'; wanted: 'angular_distance', 'block"),
        (
            ("layers: 24", "layres: 24"),
            "line 7: unknown key 'prune.target.layres'; did you mean 'prune.target.layers'?",
        ),
        (
            ("layers: 24", "num_layers: 24"),
            "line 7: unknown key 'prune.target.num_layers'; did you mean 'prune.target.layers'?",
        ),
        (("rewrite: {}", "tasks: [arc]"), "line 8: unknown key 'tasks'; did you mean 'evaluate.tasks'?"),
        (
            ("rewrite: {}", "evaluate: {items: 3}"),
            "line 8: unknown key 'evaluate.items'; did you mean 'evaluate.limit'?",
        ),
        (
            ("rewrite: {}", "evaluate: {zzz: 3}"),
            "unknown key 'evaluate.zzz'; allowed: apply_chat_template, batch_size",
        ),
        (
            ("data: rewritten", "learning_rate: 1"),
            "line 12: unknown key 'recover.selfd.learning_rate'; did you mean 'recover.selfd.args.learning_rate'?",
        ),
        (
            ("data: rewritten", "lora_alpha: 1"),
            "line 12: unknown key 'recover.selfd.lora_alpha'; did you mean 'recover.selfd.peft.lora_alpha'?",
        ),
        (("layers: 24", "layers: many"), "line 7: prune.target.layers is 'many'; wanted: a valid integer"),
        (("layers: 24", "layers: 0"), "line 7: prune.target.layers is 0; wanted: greater than 0"),
        (("prune:", "prun:"), "line 4: unknown key 'prun'; did you mean 'prune'?"),
        (
            ("method: sft", "metod: sft"),
            "line 11: unknown key 'recover.selfd.metod'; did you mean 'recover.selfd.method'?",
        ),
        (
            ("data: rewritten", "data: rewriten"),
            "line 12: recover.selfd.data is 'rewriten'; wanted: 'references', 'rewritten'",
        ),
        (("rewrite: {}\n", ""), "trains on rewritten data but the recipe has no `rewrite` section"),
        (("selfd:", "dense:"), "recover.dense: an arm's name"),
        (("selfd:", "../x:"), "recover.../x: an arm's name"),
        (("output: runs/x\n", ""), "the key 'output' is missing"),
        (("  target:\n    layers: 24\n", ""), "prune requires exactly one of `target` and `keep`"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(tmp_path, change, message):
    path = recipe_file(tmp_path, FULL.replace(*change))
    with pytest.raises(InputError) as error:
        load_recipe(path, [])
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "likely"),
    [
        # renamed keys
        ("evaluate.items", "evaluate.limit"),
        ("prune.how", "prune.strategy"),
        ("search.depth", "search.layers_by"),
        ("cache_teacher.k", "cache_teacher.top_k"),
        ("prune.target.batch", "prune.target.batch_size"),
        ("prune.target.context", "prune.target.max_model_len"),
        # keys of another section
        ("layers", "prune.target.layers"),
        ("target", "prune.target"),
        ("share", "prune.target.share"),
        ("rungs", "search.rungs"),
        ("prune.dataset", "dataset"),
        ("prune.layers_by", "prune.by"),
        ("prune.samples", "score.samples"),
        ("search.bytes", "search.budget.bytes"),
        ("report.split", "dataset.split"),
        ("evaluate.split", "evaluate.held_out.split"),
        ("items", "evaluate.limit"),
        ("k", "cache_teacher.top_k"),
        ("args", "recover.ARM.args"),
        # arguments of the trainer
        ("recover.selfd.temperature", "recover.selfd.args.temperature"),
        ("recover.selfd.batch_size", "recover.selfd.args.per_device_train_batch_size"),
        ("recover.selfd.lr", "recover.selfd.args.learning_rate"),
        ("recover.selfd.lora_rank", "recover.selfd.peft.r"),
        # misspellings
        ("evalute", "evaluate"),
        ("prune.stratgy", "prune.strategy"),
        # a variable of chat templates
        ("enable_thinking", "chat_template_kwargs"),
    ],
)
def test_an_unknown_key_names_the_likely_one(tmp_path, key, likely):
    with pytest.raises(InputError) as error:
        load_recipe(recipe_file(tmp_path, FULL), [f"{key}=1"])
    assert str(error.value) == f"the command line: unknown key {key!r}; did you mean {likely!r}?"


def test_overrides_are_dotted_keys_with_yaml_values(tmp_path):
    path = recipe_file(tmp_path, FULL)
    recipe = load_recipe(
        path, ["prune.target.layers=20", "recover.selfd.args.learning_rate=1.0e-3", "seed=7", "evaluate.limit=null"]
    )
    assert recipe.prune.target.layers == 20
    assert recipe.recover["selfd"].args == {"learning_rate": 1e-3}
    assert recipe.seed == 7


def test_numbers_in_exponent_notation(tmp_path):
    recipe = load_recipe(recipe_file(tmp_path, FULL), ["recover.selfd.args.learning_rate=1e-4"])
    assert recipe.recover["selfd"].args == {"learning_rate": 1e-4}
    text = FULL + "    args: {learning_rate: 2e-5, run_name: 1e, warmup: -3E+2}\n"
    assert load_recipe(recipe_file(tmp_path, text), []).recover["selfd"].args == {
        "learning_rate": 2e-5,
        "run_name": "1e",
        "warmup": -300.0,
    }


def test_an_override_of_one_arm_does_not_change_arms_of_the_same_anchor():
    recipe = quickstart_recipe("default", ["recover.sft.args.learning_rate=1e-3"])
    assert recipe.recover["sft"].args["learning_rate"] == 1e-3
    assert recipe.recover["selfd"].args["learning_rate"] == 2e-4


def test_an_override_below_an_empty_section():
    values = ["model=m", "dataset.path=d", "output=o", "prune.target.layers=2", "rewrite=", "rewrite.batch_size=3"]
    assert load_recipe(None, values).rewrite.batch_size == 3


def test_a_recipe_can_consist_of_overrides():
    words = ["model=m", "dataset.path=d.jsonl", "output=o", "prune.keep.num_hidden_layers=[0, 1]"]
    assert load_recipe(None, words).prune.keep.num_hidden_layers == [0, 1]


@pytest.mark.parametrize("word", ["prune", "=3", "seed.x=1", "seed=[1"])
def test_bad_overrides_are_named(tmp_path, word):
    with pytest.raises(InputError, match="is no override|is a value|not YAML"):
        load_recipe(recipe_file(tmp_path, FULL + "seed: 1\n"), [word])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: 1\nb: [1", "line 2 is not YAML"), ("- a\n", "holds a list"), ("just text", "holds a str")],
)
def test_files_that_are_not_recipes(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_recipe(recipe_file(tmp_path, text), [])


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_recipe(tmp_path / "none.yaml", [])


def test_unknown_models_to_evaluate_are_refused():
    with pytest.raises(InputError, match="evaluate.models names 'sft'; allowed: dense, pruned"):
        parse_recipe(MINIMAL | {"evaluate": {"models": ["dense", "sft"]}}, "test")


def test_sections_are_frozen():
    recipe = parse_recipe(MINIMAL, "test")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3


def test_every_key_is_documented():
    def undocumented(section, path):
        for name, field in section.model_fields.items():
            nested = [
                part
                for part in [field.annotation, *getattr(field.annotation, "__args__", ())]
                if hasattr(part, "model_fields")
            ]
            for part in nested:
                yield from undocumented(part, f"{path}.{name}")
            if not nested and not field.description and name != "recover":
                yield f"{path}.{name}"

    assert list(undocumented(Recipe, "recipe")) == []


def sections(section=Recipe):
    """Return every section of the recipe."""
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from sections(inner)


def test_the_quickstart_takes_other_rows_another_size_and_another_cut():
    recipe = quickstart_recipe("default", ["dataset.path=mine.jsonl", "prune.target.layers=20"])
    assert recipe.prune.target.sizes == {"num_hidden_layers": 20}
    assert {section.path for section in recipe.datasets} == {"mine.jsonl"}
    assert recipe.recover["repaired"].data == "text"
    rows = [quickstart_recipe(size, ["dataset.path=mine.jsonl"]).dataset.rows for size in ("fast", "default", "full")]
    assert rows == [80, 250, None]
    by_scores = quickstart_recipe("fast", ["prune.by=angular_distance"]).prune
    assert (by_scores.strategy, by_scores.as_repaired, by_scores.texts) == ("greedy", False, None)
    swaps = quickstart_recipe("default", ["prune.by=agreement", "prune.strategy=swap"]).prune
    assert (swaps.by, swaps.strategy, swaps.as_repaired, swaps.texts) == ("agreement", "swap", "auto", 4)
    assert quickstart_recipe("default", ["prune.by=task:probe_plurals"]).prune.strategy == "contiguous"
    assert quickstart_recipe("default", ["prune.target.share=0.8"]).prune.target.budgets == {"share": 0.8}
    kept = quickstart_recipe("default", ["prune.keep.num_hidden_layers=[0,1,2]"]).prune
    assert (kept.target, kept.as_repaired) == (None, False)
    assert quickstart_recipe("default", ["score.dataset=generated"]).score.is_generated


def test_hints_name_existing_keys():
    for section in sections():
        for name, key in section.other_names.items():
            first, _, rest = key.partition(".")
            assert first in section.model_fields, f"{section.__name__}: {name} -> {key}"
            assert name not in section.model_fields
            nested = list(sections_in(section.model_fields[first].annotation))
            assert not rest or not nested or rest in nested[0].model_fields


@pytest.mark.parametrize("size", SIZES)
def test_quickstart_sizes_are_recipes(size):
    recipe = quickstart_recipe(size, ["seed=3"])
    assert recipe.seed == 3
    assert list(recipe.recover) == ["sft", "selfd", "repaired"]
    sft, selfd, repaired = recipe.recover.values()
    assert repaired.method == "local_kd"
    assert (recipe.prune.by, recipe.prune.as_repaired, recipe.prune.target.layers) == ("kl", "auto", 24)
    assert sft.model_dump(exclude={"data"}) == selfd.model_dump(exclude={"data"})


def test_yaml_round_trip():
    recipe = parse_recipe(yaml.safe_load(FULL), "test")
    assert parse_recipe(recipe.model_dump(mode="json"), "test") == recipe


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"budget": {}}},
            "budget requires exactly one of `parameters`, `share`, `bytes` and `memory`",
        ),
        ({"search": {"budget": {"share": 0.5, "bytes": 9}}}, "requires exactly one"),
        ({"search": {"budget": {"share": 0.5}, "rungs": [20, 10]}}, "search rungs are .*growing"),
        (
            {"search": {"budget": {"share": 0.5}, "train": {"tokens": 9}}},
            "search.train has `tokens`; the number of tokens is set by `rungs`",
        ),
        ({"search": {"budget": {"share": 0.5}, "train": {"data": "rewritten"}}}, "search.train.data is 'rewritten'"),
        ({"search": {"budget": {"share": 0.5}}, "prune": {"target": {"layers": 2}}}, "which go together"),
        ({"search": {"budget": {"share": 0.5}, "train": {"init": "random_units"}}}, "starts from its candidate"),
        ({}, "which go together"),
        ({"prune": {"by": "search", "target": {"layers": 2}}}, "prune by search accepts neither `target` nor `keep`"),
    ],
)
def test_search_sections_that_do_not_fit_are_refused(sections, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(MINIMAL | {"prune": {"by": "search"}} | sections, "test")


def bomb(levels):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join([*lines, "model: x", f"recover: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(12), "has aliases that stand for more than 100,000 values"),
        ("model: &m [*m]\noutput: x", "has aliases that stand for more than"),
        ("model: " + "[" * 3000, "is nested too deeply|is not YAML"),
        ("model: !!python/object/apply:os.system ['true']", "is not YAML: .*constructor"),
        ("model: !include /etc/passwd", "is not YAML: .*constructor"),
    ],
    ids=["billion laughs", "itself", "deep", "python tag", "unknown tag"],
)
def test_yaml_made_to_harm_is_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_recipe(recipe_file(tmp_path, text), [])


def test_an_override_made_to_harm_is_one_sentence():
    with pytest.raises(InputError, match="aliases that stand for|is not YAML"):
        load_recipe(None, ["model=m", "output=x", "recover=&r [*r]"])


def test_long_lists_without_aliases_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "MAX_ALIASED", 10)
    keep = {"intermediate_size": [list(range(30)) for _ in range(4)]}
    text = yaml.safe_dump(MINIMAL | {"prune": {"keep": keep}}, default_flow_style=True)
    assert load_recipe(recipe_file(tmp_path, text), []).prune.keep.plan == keep
