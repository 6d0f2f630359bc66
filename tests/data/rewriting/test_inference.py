import pytest

from trl_prune.data.rewriting.answer_types import shipped_answer_types
from trl_prune.data.rewriting.inference import type_of_answer, type_of_dataset


OPTIONS = "Which is a fruit?\nA. stone\nB. apple\nC. iron"


@pytest.mark.parametrize(
    ("instruction", "answer", "name"),
    [
        ("2 + 3?", "2 + 3 = 5\n#### 5", "math"),
        ("Half?", r"so \boxed{\frac{1}{2}}", "math"),
        ("2 + 3?", "5", "math"),
        ("Cost?", "$1,234.50", "math"),
        (OPTIONS, "B", "choice"),
        (OPTIONS, "The answer is (B).", "choice"),
        (OPTIONS, "B. apple", "choice"),
        ("Which is a fruit?", "B", "phrase"),
        ("Capital of France?", "Paris", "phrase"),
        ("Capital of France?", "The capital of France is Paris, on the Seine.", "open"),
        ("In 1969?", "In 1969, people landed on the moon for the first time.", "open"),
        ("Call it", '{"name": "clock", "arguments": {"zone": "UTC"}}', "function_call"),
        ("Call it", "clock(zone='UTC')", "function_call"),
        ("As JSON", '{"city": "Paris", "population": 2}', "json"),
        ("Write it", "Here it is:\n```python\ndef f(x):\n    return x\n```\nIt returns x.", "code"),
        ("Write it", "def f(x):\n    return x", "code"),
        ("Write it", "```python\ndef add(a, b):\n    return a + b\nprint(add(2, 3))\n```", "code"),
        ("Write it", "```python\nx = [1, 2]\n```", "code"),
        ("As JSON", "```json\n[1, 2]\n```", "json"),
        ("Outline", "#### 1. Overview of the field\nSome words about it.", "open"),
        ("Cite", "[1] Smith et al. wrote about it at length, in 1999.", "open"),
        ("Explain import", "Use import to load a module, for instance import math, then math.pi is there.", "open"),
        ("List", "- one thing that matters here\n- another one", "open"),
    ],
)
def test_types_of_reference_answers(instruction, answer, name):
    assert type_of_answer(instruction, answer) == name


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("openai/gsm8k", "math"),
        ("data/gsm8k_train.jsonl", "math"),
        ("tatsu-lab/alpaca", "general"),
        ("databricks/databricks-dolly-15k", "general"),
        ("teknium/OpenHermes-2.5", "general"),
        ("ise-uiuc/Magicoder-OSS-Instruct-75K", "refer"),
        ("nvidia/OpenMathInstruct-1", "math"),
        ("GAIR/lima", "general"),
        ("me/climate", None),
        ("/home/alpaca/data/mine.jsonl", None),
        ("data/alpaca_train.json", "general"),
        ("rows.jsonl", None),
        (None, None),
    ],
)
def test_types_of_datasets(dataset, name):
    assert type_of_dataset(dataset, shipped_answer_types()) == name
