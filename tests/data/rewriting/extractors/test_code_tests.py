import os
import time
from pathlib import Path

import pytest

from trl_prune.data.rewriting.extractors.code_tests import run_tests


pytestmark = pytest.mark.slow

DOUBLE = "def double(x):\n    return 2 * x\n"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n"
LIMITS = {"timeout_s": 5, "memory_bytes": 2**29}


def test_code_passes_its_tests():
    assert run_tests(DOUBLE, "assert double(2) == 4", None, **LIMITS)
    assert run_tests(DOUBLE, CHECK, "double", **LIMITS)
    assert run_tests("from __future__ import annotations\n" + DOUBLE, CHECK, "double", **LIMITS)


@pytest.mark.parametrize(
    "code",
    [
        "def double(x):\n    return 3 * x\n",
        "def double(x:\n",
        "def other(x):\n    return 2 * x\n",
        "import sys\nsys.exit(0)\n" + DOUBLE,
        "import os\nos._exit(0)\n" + DOUBLE,
        "x = bytearray(2**30)\n" + DOUBLE,
        "open('big', 'wb').write(bytes(2**26))\n" + DOUBLE,
        "import os\nassert os.environ.get('HOME')\n" + DOUBLE,
    ],
)
def test_wrong_code_and_code_beyond_the_limits_fails(code):
    assert not run_tests(code, CHECK, "double", **LIMITS)


def test_code_under_main_does_not_run_and_files_stay_in_a_folder_of_their_own():
    code = DOUBLE + "open('made_by_a_test', 'w').close()\nif __name__ == '__main__':\n    raise SystemExit(1)\n"
    assert run_tests(code, CHECK, "double", **LIMITS)
    assert not Path("made_by_a_test").exists()


def test_endless_code_is_killed_with_what_it_started(tmp_path):
    record = tmp_path / "child"
    code = (
        f"import os, time\npid = os.fork()\nif pid:\n    open({str(record)!r}, 'w').write(str(pid))\ntime.sleep(60)\n"
    )
    assert not run_tests(code, "", None, timeout_s=2, memory_bytes=2**29)
    child = int(record.read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("the child still runs")
