import warnings

import pytest

from trl_prune.data.rewriting.extractors.python_code import python_code, same_definitions


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("Here:\n```\nx = 1\n```\nDone.", "x = 1"),
        ("```python\na = 1\n```\nbetter:\n```python\na = 2\n```", "a = 2"),
        ("```py\ndef f(): pass\n```\nUse it:\n```python\nf()\n```", "def f(): pass"),
        ("1. So:\n   ```python\n   x = 1\n   ```", "x = 1"),
        ("x = 1", "x = 1"),
        ("import os", "import os"),
        ("```text\nfoo\n```", None),
        ("hello", None),
        ("I import things from there.", None),
        ("", None),
    ],
)
def test_the_code_of_a_text(text, code):
    assert python_code(text) == code


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("Sure:\n```python\ndef f(a): return a\n```", "def f(x): return 2 * x"),
        ("class A: pass\ndef g(): pass", "def g(): pass"),
        ("async def f(): pass", "```python\nasync def f(): pass\n```"),
        ("x = 2", "x = 1"),  # the reference defines nothing
        ("import os", "import  os"),
        ("a = [1, 2]\nx = sum(a)\nprint(x)", "x = sum(a)\nprint(x)"),
        ("def f(a, *, b=lambda c: c): return a", "def f(x, *y): return x"),
        ("class A:\n    x = 1", "class A:\n    y = 2"),
    ],
)
def test_code_agrees_if_it_defines_what_the_reference_does(text, reference):
    assert same_definitions(text, reference)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("```python\ndef f(: \n```", "def f(x): pass"),
        ("def h(): pass", "def f(): pass"),
        ("class A:\n    def f(self): pass", "def f(): pass"),
        ("I cannot write code.", "def f(): pass"),
        ("import os", "x = sum(a)\nprint(x)"),
        ("import os", "import sys"),
        ("x = max(a)\nprint(x)", "x = sum(a)\nprint(x)"),
        ("def f(x): return x", "def f(x, y): return x + y"),
        ("def f(x, y): pass", "def f(x, y): return x + y"),
        ('def f(x, y):\n    """Add."""\n    ...', "def f(x, y): return x + y"),
        ("def f(x, y): raise NotImplementedError", "def f(x, y): return x + y"),
        ("class A: pass", "class A:\n    x = 1"),
        ("def A(): return 1", "class A:\n    x = 1"),
        ("def f(): pass", "no code"),
        ("def f(): pass\0", "def f(): pass"),
    ],
)
def test_other_code_disagrees(text, reference):
    assert not same_definitions(text, reference)


def test_invalid_escapes_of_the_code_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert python_code("x = '\\d'") == "x = '\\d'"
