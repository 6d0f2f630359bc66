import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.extractors.json_value import json_value, same_json


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Here: {"a": 1, "b": [1, 2.0]}, done', '{"b": [1.0, 2], "a": 1}'),
        ("```json\n[1]\n```", "[1]"),
        ('see {this}: {"a": "}"}', '{"a":"}"}'),
        ('{"a": "x"} and {"b": 1}', '{"a": "x"}'),
        ("5", "5.0"),
        ("0.1", "1e-1"),
    ],
)
def test_equal_values_agree(text, expected):
    assert same_json(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": true}', '{"a": 1}'),
        ('{"a": 1', '{"a": 1}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ("[1, 2]", "[2, 1]"),
        ('{"a": "1"}', '{"a": 1}'),
        ("[NaN]", "[NaN]"),
        ('{"a": {"b": 1}, oops}', '{"b": 1}'),
        ("0.1", "0.10000000000000001"),
        ("no value", "{}"),
    ],
)
def test_other_values_disagree(text, expected):
    assert not same_json(text, expected)


@given(JSON)
def test_values_agree_in_any_layout(value):
    text = json.dumps(value)
    assert same_json(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False), text)
    if isinstance(value, dict | list):
        assert same_json(f"The result:\n```json\n{json.dumps(value, indent=2)}\n```\nDone.", text)
        assert same_json(f"The result is {text}, as asked.", text)


@given(JSON, JSON)
def test_values_agree_as_python_does_but_for_booleans(one, other):
    assert same_json(json.dumps(one), json.dumps(other)) == (_typed(one) == _typed(other))


def _typed(value):
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ["list", *map(_typed, value)]
    return {key: _typed(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_texts_without_a_value():
    assert json_value("none here") is None
    assert json_value("{" * 5000) is None
    assert json_value('{"' * 3000) is None
