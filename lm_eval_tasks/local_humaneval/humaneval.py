"""HumanEval's problems from a JSON Lines file: answers become programs, and each runs in a process of its own.

The limits keep a mistake in generated code from harming the machine. They are no sandbox against malice: a program may
read files and use the network as its user may. lm-eval runs the tasks only with `--confirm_run_unsafe_code`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from math import comb
from pathlib import Path
from typing import Any

from datasets import Dataset


# Names the file where lm-eval gets no `--metadata '{"humaneval_file": "..."}'`.
VARIABLE = "HUMANEVAL_FILE"
COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
# The k of pass@k, each where there are that many samples.
KS = (1, 10)
# Limits of a program: seconds of wall clock and of processor time, bytes of memory and of a file.
SECONDS, MEMORY, FILE_SIZE = 10, 2**30, 2**24
POLL_SECONDS = 0.01
# Sets the limits and runs the program; under a name of its own, so that no `if __name__ == "__main__":` runs.
LAUNCHER = f"""
import resource, runpy
for limit, value in (("CPU", {SECONDS}), ("AS", {MEMORY}), ("FSIZE", {FILE_SIZE}), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + limit), (value, value))
runpy.run_path("program.py", run_name="program")
"""
FENCE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
# Where code begins that is not a function's body, and where a body that begins an answer ends.
TOP_LEVEL = re.compile(r"^(?:from |import |def |async def |class |@)", re.MULTILINE)
BODY_END = re.compile(r"\n(?=[^\s)\]}])")


def problems(humaneval_file: str | None = None, file: str | None = None, **_: object) -> dict[str, Dataset]:
    """Return the problems of the file that the task's metadata or the environment names."""
    name = humaneval_file or file or os.environ.get(VARIABLE, "")
    if not Path(name).is_file():
        raise FileNotFoundError(
            f"the task needs a file of HumanEval's problems, but {name or 'none'} is given; name it as "
            f'--metadata \'{{"humaneval_file": "..."}}\' or in {VARIABLE}'
        )
    with Path(name).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    for number, row in enumerate(rows):
        if missing := [column for column in COLUMNS if column not in row]:
            raise ValueError(f"problem {number} of {name} has no {missing[0]}; wanted: {', '.join(COLUMNS)}")
    return {"test": Dataset.from_list([{column: row[column] for column in COLUMNS} for row in rows])}


def run_answers(resps: list[list[str]], docs: list[dict[str, Any]]) -> list[list[bool]]:
    """Return, as a filter of lm-eval, whether each answer to each problem passes the problem's tests."""
    programs = [
        [f"{program(doc, answer)}\n\n{doc['test']}\n\ncheck({doc['entry_point']})\n" for answer in answers]
        for answers, doc in zip(resps, docs, strict=True)
    ]
    with ThreadPoolExecutor(_cores()) as pool:
        return [list(passed) for passed in [pool.map(passes, answers) for answers in programs]]


def _cores() -> int | None:
    """Return the cores that this process may use, where the system says so, and else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def pass_rates(doc: dict[str, Any], results: list[list[bool]]) -> dict[str, float]:  # noqa: ARG001
    """Return the unbiased estimate of pass@k (2107.03374, section 2.1) for each k of `KS` up to the samples."""
    (passed,) = results
    samples, failed = len(passed), len(passed) - sum(passed)
    return {f"pass@{k}": 1 - comb(failed, k) / comb(samples, k) for k in KS if k <= samples}


def program(doc: dict[str, Any], answer: str) -> str:
    """Return the code that an answer gives: a function of its own behind the prompt's, or the prompt's with its body.

    The code is in the first fence with the function, the first fence, or the answer where there is no fence.
    """
    defines = re.compile(rf"^(?:async )?def {re.escape(doc['entry_point'])}\b", re.MULTILINE)
    fenced = FENCE.findall(answer)
    code = next((block for block in fenced if defines.search(block)), fenced[0] if fenced else answer)
    if defines.search(code):
        # The prompt's imports and helpers stay; its function gets a body and is then defined again.
        return f"{doc['prompt']}\n    pass\n\n{code[TOP_LEVEL.search(code).start() :]}"
    return doc["prompt"] + BODY_END.split(code, maxsplit=1)[0]


def passes(text: str) -> bool:
    """Return whether a program runs to its end, in a process, session and empty folder of its own with limits."""
    status = secrets.randbelow(100) + 20  # an exit status that an answer does not reach by itself
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_text(f"{text}\n__import__('os')._exit({status})\n", "utf-8", "replace")
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", LAUNCHER],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + SECONDS
        try:
            # Not waited for, so that the session's id stays its own until what the program started is ended too.
            while time.monotonic() < deadline and not _has_ended(process.pid):
                time.sleep(POLL_SECONDS)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode == status


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
