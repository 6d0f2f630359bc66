"""Any recipe, as values or as text, becomes a recipe or one sentence."""

import copy
import datetime
import types
import typing

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.recipe.test_recipe import FULL
from trl_prune.errors import InputError
from trl_prune.recipe import Recipe, load_recipe, parse_recipe
from trl_prune.recipe.messages import sections_in
from trl_prune.recipe.section import Section


# Characters that a sentence may have: it is read on a terminal.
LONGEST = 1200
# Long ones are made when drawn: hypothesis describes a strategy by its values, once for each that is made of it.
ODD = st.sampled_from(
    [
        None, True, -1, 0, 1, 10**400, 2.5, float("nan"), float("inf"), -0.0, "", " ", "x", "two\nlines", "\x00",
        "\ud800", "~", "1e-4", "../..", "/", "dense", "pruned", "auto", [], [[]], [None], {}, {"a": None}, {1: 2},
        {None: 1}, b"bytes", datetime.date(2024, 1, 1), {"x"}, {"layers": 2}, {"path": 3},
    ]
) | st.sampled_from([["a"], "long"]).map(lambda short: short * 5000)  # fmt: skip
NAMES = st.sampled_from(["m", "rows.jsonl", "runs/x", "slerp", "sft", "kd", "pruned", "./folder", "task:a", "kl"])
PLAIN = {
    int: st.integers(-1, 40),
    float: st.floats(0, 1) | st.integers(0, 2),
    str: NAMES,
    bool: st.booleans(),
    type(None): st.none(),
    object: NAMES | st.integers(0, 9),
}


def values_of(annotation):
    """Return a strategy of mostly plausible values of a type."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return section_of(annotation)
    return OF[typing.get_origin(annotation)](typing.get_args(annotation))


OF = {
    typing.Annotated: lambda arguments: values_of(arguments[0]),
    typing.Literal: st.sampled_from,
    typing.Union: lambda arguments: st.one_of([values_of(argument) for argument in arguments]),
    types.UnionType: lambda arguments: st.one_of([values_of(argument) for argument in arguments]),
    list: lambda arguments: st.lists(values_of(arguments[0]), max_size=3),
    tuple: lambda arguments: st.lists(values_of(arguments[0]), max_size=3),
    dict: lambda arguments: st.dictionaries(NAMES | st.text(max_size=4), values_of(arguments[1]), max_size=2),
}


def section_of(section, usual=4):
    """Return a strategy of a section's values, with odd ones and keys that it does not have."""
    fields = {
        name: st.one_of(*[st.deferred(lambda field=field: values_of(field.annotation))] * usual, ODD)
        for name, field in section.model_fields.items()
    }
    others = st.dictionaries(st.sampled_from([*section.other_names, "layer", "", "1"]), ODD, max_size=1)
    needed = {name: fields.pop(name) for name, field in section.model_fields.items() if field.is_required()}
    known = st.fixed_dictionaries(needed, optional=fields)
    return st.one_of(*[known] * usual, st.builds(lambda one, more: one | more, known, others))


def places(section=Recipe, path=()):
    """Yield the place of every key of a recipe with its type; an arm has the name `sft`, a merge `soup`."""
    for name, field in section.model_fields.items():
        yield (*path, name), field.annotation
        inner = next(sections_in(field.annotation), None)
        if inner is not None and len(path) < 3:
            named = {"recover": ["sft"], "merge": ["soup"], "selections": ["own"]}.get(name, [])
            yield from places(inner, (*path, name, *named))


VALID = {
    "model": "m",
    "dataset": {"path": "rows.jsonl"},
    "output": "runs/x",
    "prune": {"target": {"layers": 3}},
    "rewrite": {},
    "cache_teacher": {},
    "recover": {"sft": {}, "kd": {"method": "kd", "data": "references"}},
    "merge": {"soup": {"recipe": "linear", "models": ["sft", "kd"]}},
    "evaluate": {"tasks": ["a"]},
    "report": {},
}


def changed(*changes):
    """Return the valid recipe with values set at some places."""
    recipe = copy.deepcopy(VALID)
    for place, value in changes:
        inner = recipe
        for name in place[:-1]:
            if not isinstance(inner.get(name), dict):
                inner[name] = {}
            inner = inner[name]
        inner[place[-1]] = value
    return recipe


CHANGES = st.one_of([st.tuples(st.just(place), values_of(kind) | ODD) for place, kind in places()])
RECIPES = st.one_of(section_of(Recipe), *[st.builds(changed, *[CHANGES] * count) for count in (1, 1, 2)])
PIECES = st.sampled_from(
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n", "c: [*b, *b, *b]\n",
        "&a [*a]\n", "<<: *a\n", "? [a, b]\n: c\n", "!!python/object/apply:os.system [ls]\n", "!!set {a, b}\n",
        "!!binary aGk=\n", "2024-01-01\n", "--- \n", "...\n", "%YAML 1.1\n", "\t", "- ", ": ", "{", "}", "[", "]", "'",
        '"', "\\", "#", "|\n", "\ufeff", "\x00", "\x85", "\u2028", "prune:\n  target: {layers: 3}\n", "[" * 40,
        "prune: {target: {layers: 2}}\n", "!!int x\n", "!!timestamp 2024-99-99\n", "!!float y\n", "0x_\n", "1:99:99\n",
        "=", "null: 1\n", "? \n", "*x", "2024-13-45\n", "!!omap [a: 1]\n", "!!pairs [1]\n", "!!bool x\n", "!!int ''\n",
    ]
)  # fmt: skip
LINES = FULL.splitlines(keepends=True)
PLACES = st.integers(0, len(FULL))
TEXTS = st.one_of(
    st.lists(st.sampled_from(LINES) | PIECES, max_size=12).map("".join),
    st.builds(
        lambda at, piece: FULL[:at] + piece + FULL[at:], st.integers(0, len(FULL)), PIECES | st.text(max_size=3)
    ),
    st.builds(lambda at, cut: FULL[:at] + FULL[at + cut :], st.integers(0, len(FULL)), st.integers(1, 40)),
    st.text(max_size=40),
)
OVERRIDES = st.lists(
    st.builds(
        lambda key, equals, value: key + equals + value,
        st.sampled_from(["prune.target.layers", "seed", "recover.selfd.args", "model.x", "", ".", "a.b.", "prune"]),
        st.sampled_from(["=", "==", ""]),
        PIECES | st.sampled_from(["3", "{}", "[1", "null", "x"]) | st.text(max_size=5),
    ),
    max_size=1,
)


def check_outcome(read):
    """Check that something is a recipe, or refused in one sentence."""
    try:
        recipe = read()
    except InputError as error:
        sentence = str(error)
        assert sentence.strip()
        assert len(sentence.splitlines()) == 1
        assert len(sentence) < LONGEST
        sentence.encode()
    else:
        yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True))  # as a run folder keeps it


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(RECIPES)
@example({"model": "long" * 5000, "dataset": 3})
@example(changed((("recover", "sft", "init"), "long" * 5000)))
@example(changed((("speculate", "drafts"), ["a"] * 5000)))
@example(changed((("score", "rows_per_text"), [8] * 5000)))
def test_any_values_are_a_recipe_or_one_sentence(values):
    check_outcome(lambda: parse_recipe(values, "recipe.yaml"))


@pytest.mark.slow
@settings(max_examples=2600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(TEXTS, OVERRIDES)
@example("seed: 0x_\n", [])
@example("seed: !!int ''\n", [])
@example("seed: !!timestamp x\n", [])
@example("seed: !!bool x\n", [])
@example("seed: !!binary /w==\n", [])
@example("seed: 2024-13-45\n", [])
@example("", ["seed=0x_"])
@example("", ["seed=" + "[" * 2000])
def test_any_text_is_a_recipe_or_one_sentence(tmp_path, text, overrides):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    check_outcome(lambda: load_recipe(path, overrides))
