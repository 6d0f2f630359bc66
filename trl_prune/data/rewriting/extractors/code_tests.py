"""Runs code with its tests, in a process of its own with limits.

The limits keep a mistake in generated code from harming the machine; they are no sandbox against malice: the process
may read files and use the network as its user may, and may start processes of their own sessions, which outlive it.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


MAX_FILE_BYTES = 16 * 2**20


POLL_SECONDS = 0.01


# Sets the limits, then runs the program. The module gets a name of its own, so that code under
# `if __name__ == "__main__":` does not run.
LAUNCHER = """
import resource, runpy, sys
cpu, memory, size = map(int, sys.argv[1:])
limits = {"RLIMIT_CPU": cpu, "RLIMIT_AS": memory, "RLIMIT_FSIZE": size, "RLIMIT_CORE": 0}
for name, limit in limits.items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
runpy.run_path("program.py", run_name="answer")
"""


def run_tests(code: str, tests: str, entry_point: str | None, timeout_s: float, memory_bytes: int) -> bool:
    """Return whether code passes its tests: the program of both runs to its end within the limits.

    Args:
        code: the code, in Python.
        tests: code that raises an error if a test fails; with `entry_point`, code that defines `check(candidate)`.
        entry_point: the name that `check` is called with, as in HumanEval; None if the tests run by themselves.
        timeout_s: seconds until the process and those it started are killed; also the limit of its processor time.
        memory_bytes: limit of its address space.
    """
    passed = secrets.randbelow(100) + 20  # an exit status that the code does not reach by itself
    call = f"check({entry_point})" if entry_point else ""
    program = "\n\n".join([code, tests, call, f"__import__('os')._exit({passed})\n"])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_text(program, encoding="utf-8", errors="replace")
        limits = [str(max(1, round(timeout_s))), str(memory_bytes), str(MAX_FILE_BYTES)]
        return _exit_status([sys.executable, "-I", "-c", LAUNCHER, *limits], folder, timeout_s) == passed


def _exit_status(command: list[str], folder: str, timeout_s: float) -> int:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline and not _has_ended(process.pid):
            time.sleep(POLL_SECONDS)
    finally:
        # Not waited for yet, so the group's id is still its own; ends what the code left running.
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return status


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
