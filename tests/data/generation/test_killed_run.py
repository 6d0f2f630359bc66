import subprocess
import sys

import pytest

from tests.data.generation.killed_run import PROMPTS, SAMPLING
from trl_prune.data.generation.missing import read_answers
from trl_prune.data.generation.store import AnswerStore


COMMAND = [sys.executable, "-m", "tests.data.generation.killed_run"]


def finish(folder):
    """Run to the end and return the batches that were generated."""
    finished = subprocess.run([*COMMAND, folder], capture_output=True, text=True, check=True)
    return finished.stdout.split()


def answers(folder):
    return read_answers(PROMPTS, SAMPLING, "tiny", AnswerStore(folder))


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    batches = finish(tmp_path / "unbroken")
    killed = subprocess.Popen([*COMMAND, tmp_path / "killed"], stdout=subprocess.PIPE, text=True)
    for _ in range(4):  # it is killed within the fourth batch
        killed.stdout.readline()
    killed.kill()
    killed.wait()
    assert sum(answer is not None for answer in answers(tmp_path / "killed")) == 9
    assert finish(tmp_path / "killed") == batches[3:]
    assert answers(tmp_path / "killed") == answers(tmp_path / "unbroken")
    assert finish(tmp_path / "killed") == []
