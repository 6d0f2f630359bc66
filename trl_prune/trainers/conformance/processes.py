"""The check that two processes make the step that one makes."""

import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from trl_prune.trainers.conformance.case import ROWS, Step, write_case
from trl_prune.trainers.conformance.checks import TOLERANCE, ConformanceError
from trl_prune.trainers.conformance.reference import flat_gradient, norm_ratio, relative_difference


WORKER = "trl_prune.trainers.conformance.worker"


def gradient_path(folder: Path, processes: int, rank: int) -> Path:
    """Return the file that a process writes its gradient to."""
    return folder / f"{processes}-{rank}.safetensors"


def check_processes(name: str, folder: Path) -> None:
    """Check that two processes make the step that one makes.

    Args:
        name: the builder as `module:function`, importable by a new process.
        folder: for the case and the gradients that the processes write.

    Raises:
        ConformanceError: the processes fail, or their gradient is another.
    """
    write_case(folder)
    (one_process,), two_processes = _run(name, folder, 1), _run(name, folder, 2)
    first, second = two_processes
    if (flat_gradient(first) - flat_gradient(second)).abs().max() > 0:
        raise ConformanceError("two processes end with different weights: their gradients were not averaged")
    if relative_difference(first, one_process) > TOLERANCE:
        raise ConformanceError(
            "the gradient of two processes differs from that of one: "
            f"{norm_ratio(first, one_process):.4f} times as long; num_items_in_batch counts the tokens of all "
            "processes, and DDP averages gradients over them"
        )


def _run(name: str, folder: Path, processes: int) -> list[Step]:
    """Take a step with `torchrun` and return each process's."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    result = subprocess.run(
        [*torchrun, "-m", WORKER, name, str(folder), str(len(ROWS) // processes)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise ConformanceError(f"{processes} processes fail: {result.stderr.strip()[-1500:]}")
    return [Step(load_file(gradient_path(folder, processes, rank)), 0.0) for rank in range(processes)]
