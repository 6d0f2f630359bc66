import warnings

import pytest

from trl_prune.data.rewriting.extractors.function_call import function_calls, same_calls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(a=1, b='x')", 'f(b="x", a=1.0)'),
        ("f( 1, [2,3] )", "f(1, [2, 3])"),
        ('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "f(a=1)"),
        ('Sure. <tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>g()</tool_call>', "[f(), g()]"),
        ('{"name": "f", "parameters": "{\\"a\\": 0.1}"}', "f(a=0.1)"),
        ('{"type": "function", "function": {"name": "f", "arguments": "{}"}}', "f()"),
        ('```json\n[{"name": "f", "arguments": {"a": [1, 2]}}]\n```', "f(a=(1, 2))"),
        ("[f(a=1), g(b=true)]", '[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": true}}]'),
        ("I'd call get_weather(city='Paris (France)', days = 3) now.", 'get_weather(days=3, city="Paris (France)")'),
        ("```python\nuber.ride(loc='a  b', time=10)\n```", "uber.ride(time=10, loc='a b')"),
        ("f(a=null)", "f(a=None)"),
        ("result = f(x)", "f(x)"),
    ],
)
def test_equal_calls_agree(text, expected):
    assert same_calls(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(a=1)", "f(a=2)"),
        ("f(1, 2)", "f(2, 1)"),
        ("f(1)", "f(a=1)"),
        ("f(a=1)", "g(a=1)"),
        ("f(a=True)", "f(a=1)"),
        ("f(a='1')", "f(a=1)"),
        ("f(a=1); g()", "f(a=1)"),
        ("f(a=1, b=2)", "f(a=1)"),
        ("I call nothing", "f()"),
        ("f(", "f()"),
    ],
)
def test_other_calls_disagree(text, expected):
    assert not same_calls(text, expected)


@pytest.mark.parametrize("text", ["Paris", "The value (about 5) is fine.", '{"a": 1}', "[1, 2]", "f(x) is a function"])
def test_texts_without_a_call(text):
    assert function_calls(text) is None


def test_invalid_escapes_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same_calls(r"f(a='\d')", r"f(a='\d')")
