import subprocess
import sys

import pytest

from trl_prune.data.rewriting.extractors.registry import EXTRACTORS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("number", "7"),
        ("math", r"\boxed{x^2}"),
        ("boxed", r"\boxed{7}"),
        ("choice", "The answer is B"),
        ("code", "def f(): pass"),
        ("json", '{"a": 1}'),
        ("function_call", "f(a=1)"),
        ("phrase", "Paris"),
    ],
)
def test_each_extractor_finds_an_answer_that_agrees_with_itself(name, text):
    assert EXTRACTORS[name].extract(text) is not None
    assert EXTRACTORS[name].agree(text, text)
    assert EXTRACTORS[name].extract("") is None
    assert not EXTRACTORS[name].agree("", text)


def test_the_table_above_is_complete():
    assert set(EXTRACTORS) == {"number", "math", "boxed", "choice", "code", "json", "function_call", "phrase"}


@pytest.mark.slow
def test_sympy_is_imported_only_to_compare_expressions():
    code = "import sys, trl_prune.data.rewriting.extractors.registry; sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
