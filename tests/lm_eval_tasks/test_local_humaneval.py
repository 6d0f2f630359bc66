"""HumanEval's problems from a local file: which answers pass, what a program may not do, and real lm-eval over it."""

import json
import os
import time
from importlib.resources import files

import lm_eval
import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml


FOLDER = files("lm_eval_tasks") / "local_humaneval"
HUMANEVAL = load_yaml(FOLDER / "local_humaneval.yaml")["custom_dataset"].__globals__
ADD = {
    "task_id": "add",
    "prompt": 'import math\n\n\ndef add(a, b):\n    """Return the sum."""\n',
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(2, 2) == 4\n",
    "entry_point": "add",
}
ROOT_OF = {
    "task_id": "root",
    "prompt": "import math\n\n\ndef root(number: int) -> int:\n    # the whole part of the square root\n",
    "canonical_solution": "    return math.isqrt(number)\n",
    "test": "def check(candidate):\n    assert candidate(10) == 3\n",
    "entry_point": "root",
}


class ScriptedLM(LM):
    """A model that gives prepared answers in turn and records what it was asked."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.requests = iter(answers), []

    def generate_until(self, requests, **_):
        self.requests += [request.args for request in requests]
        return [next(self.answers) for _ in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _without_environment_info(monkeypatch):
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


@pytest.fixture
def problems_file(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ADD, ROOT_OF)))
    return path


def evaluated(task, problems_file, answers, **changes):
    tasks = TaskManager(
        include_path=str(FOLDER), include_defaults=False, metadata={"humaneval_file": str(problems_file)}
    )
    lm = ScriptedLM(answers)
    settings = {"confirm_run_unsafe_code": True, "bootstrap_iters": 0} | changes
    return lm_eval.simple_evaluate(model=lm, tasks=[task], task_manager=tasks, **settings), lm


def passes(answer, problem=ADD):
    return HUMANEVAL["run_answers"]([[answer]], [problem]) == [[True]]


@pytest.mark.parametrize(
    "answer",
    [
        "    return a + b\n",
        "    return a + b\nprint(undefined)",
        "    return sum(\n        [a, b]\n)",
        "```python\ndef add(a, b):\n    return a + b\n```",
        "```\ndef add(a, b):\n    return a + b",
        "Here it is:\n```python\nimport operator\n\n\ndef add(a, b):\n    return operator.add(a, b)\n```\nDone.",
        "First:\n```python\nassert add(1, 2) == 3\n```\nThen:\n```py\nx = 0\ndef add(a, b):\n    return a + b\n```",
        "Here it is:\n\ndef add(a, b):\n    return a + b\n",
    ],
)
def test_right_answers_pass_as_a_body_in_a_fence_and_behind_a_sentence(answer):
    assert passes(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "    return a - b\n",
        "    exit(0)\n",
        "    import os; os._exit(0)\n",
        "def other(a, b):\n    return a + b\n",
        "I can not do this.",
        "```python\ndef subtract(a, b):\n    return a + b\n```",
    ],
)
def test_wrong_answers_and_early_ends_fail(answer):
    assert not passes(answer)


def test_a_function_of_the_answers_own_keeps_the_prompts_imports():
    assert passes("```python\ndef root(number):\n    return math.isqrt(number)\n```", ROOT_OF)
    assert passes(ROOT_OF["canonical_solution"], ROOT_OF)


@pytest.mark.parametrize(
    "body",
    [
        "x = bytearray(2**31)",
        "open('big', 'wb').write(bytes(2**25))",
        "assert __import__('os').listdir() != ['program.py']",
        "assert not __import__('os').environ.get('HOME')",
        "__import__('os').environ['PATH']",
    ],
)
def test_memory_files_folder_and_environment_are_limited(body):
    is_allowed = body.startswith("assert not")
    assert passes(f"    {body}\n    return a + b\n") is is_allowed


@pytest.mark.slow
def test_a_program_that_does_not_end_is_ended_with_what_it_started(monkeypatch, tmp_path):
    monkeypatch.setitem(HUMANEVAL, "SECONDS", 1)
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    body = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    start = time.monotonic()
    assert not passes(f"    {body}\n")
    assert time.monotonic() - start < 30
    if pid_file.exists():
        with pytest.raises(ProcessLookupError):
            _wait_for_the_end_of(int(pid_file.read_text()))


def _wait_for_the_end_of(pid):
    for _ in range(200):
        os.kill(pid, 0)
        time.sleep(0.05)


def test_lm_eval_counts_greedy_answers(problems_file):
    results, lm = evaluated("local_humaneval", problems_file, ["    return a + b", "    return 3 + number"])
    assert results["results"]["local_humaneval"]["pass@1,passed"] == 0.5
    assert [context for context, _settings in lm.requests] == [ADD["prompt"], ROOT_OF["prompt"]]
    assert lm.requests[0][1]["do_sample"] is False


def test_lm_eval_asks_for_a_whole_function_in_the_instruct_task(problems_file):
    fence = "```python\ndef {}\n```"
    answers = [fence.format("add(a, b):\n    return a + b"), fence.format("root(n):\n    return math.isqrt(n)")]
    results, lm = evaluated("local_humaneval_instruct", problems_file, answers)
    assert results["results"]["local_humaneval_instruct"]["pass@1,passed"] == 1.0
    assert lm.requests[0][0].endswith(f"\n\n```python\n{ADD['prompt']}```")
    assert lm.requests[0][1]["until"] == []


def test_lm_eval_estimates_pass_at_k_from_twenty_samples(problems_file, monkeypatch):
    monkeypatch.setitem(HUMANEVAL, "passes", lambda text: "return a + b" in text)
    # 5 of 20 right: pass@10 = 1 - C(15, 10) / C(20, 10).
    right, wrong = "    return a + b", "    return a - b"
    answers = [right] * 5 + [wrong] * 15 + [wrong] * 20
    results, _ = evaluated("local_humaneval_20", problems_file, answers)
    scores = results["results"]["local_humaneval_20"]
    assert scores["pass@1,passed"] == pytest.approx(0.25 / 2)
    assert scores["pass@10,passed"] == pytest.approx((1 - 3003 / 184756) / 2)


def test_code_runs_only_with_the_users_word(problems_file):
    with pytest.raises(ValueError, match="confirm_run_unsafe_code=True"):
        evaluated("local_humaneval", problems_file, [], confirm_run_unsafe_code=False)


def test_a_missing_file_and_a_missing_column_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="needs a file of HumanEval's problems, but /no/such is given"):
        evaluated("local_humaneval", "/no/such", [])
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"task_id": "x", "prompt": "y"}))
    with pytest.raises(ValueError, match="problem 0 of .* has no canonical_solution; wanted: task_id, prompt,"):
        evaluated("local_humaneval", path, [])


def test_the_file_is_also_found_in_the_environment(problems_file, monkeypatch):
    monkeypatch.setenv("HUMANEVAL_FILE", str(problems_file))
    assert len(HUMANEVAL["problems"](version=1.0)["test"]) == 2
