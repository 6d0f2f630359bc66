"""Roads killed at random moments end with an unbroken road's files (`benchmarks/kills.py`)."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
def test_a_road_killed_three_times_ends_with_the_files_of_an_unbroken_one():
    # A process of its own, because the script forks, and workers of pytest have threads.
    found = subprocess.run(
        [sys.executable, SCRIPT, "--short", "--kills", "3"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "3 kills of " in found.stdout
    assert "all files equal the unbroken run's" in found.stdout
