"""Work done by several processes: `accelerate launch` starts them, a folder carries the job there and faults back."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import yaml

from trl_prune.checkpoints import write_text
from trl_prune.errors import InputError, first_line


FAULT = "fault.txt"


@dataclass(frozen=True)
class Launch:
    """How processes start.

    Attributes:
        processes: how many.
        config: accelerate's config file; every GPU of this machine gets a process where None.
    """

    processes: int
    config: Path | None = None


def find_launch(config: str | None) -> Launch | None:
    """Return how processes start: as a config says, on all GPUs where there are several, or here (None).

    Args:
        config: accelerate's config file, or the name of one that TRL ships (`multi_gpu`, `fsdp2`, `zero3`, ...).

    Raises:
        InputError: it is neither, or cannot be read.
    """
    if config is None:
        count = torch.cuda.device_count()
        return Launch(count) if count > 1 else None
    path = Path(config).expanduser()
    shipped = files("trl.accelerate_configs")
    if not path.is_file():
        path = Path(str(shipped / f"{config}.yaml"))
    if not path.is_file():
        names = sorted(entry.name.removesuffix(".yaml") for entry in shipped.iterdir() if entry.name.endswith(".yaml"))
        raise InputError(f"--accelerate_config {config!r} is no file here; allowed: a file, or {', '.join(names)}")
    return Launch(_processes(path), path)


def _processes(path: Path) -> int:
    try:
        return int(yaml.safe_load(path.read_text()).get("num_processes") or 1)
    except (yaml.YAMLError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"--accelerate_config {path} is no accelerate config: {first_line(error)}") from error


def launch_command(launch: Launch, module: str, job: Path) -> list[str]:
    """Return the command that starts a job's processes, each of which runs a module on the job's folder."""
    everywhere = ["--multi_gpu", "--num_processes", str(launch.processes), "--num_machines", "1"]
    # Port 0: any that is free, so that two runs share a machine. Precision is the trainer's own argument.
    everywhere += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    how = ["--config_file", str(launch.config)] if launch.config else everywhere
    start = [sys.executable, "-m", "accelerate.commands.launch", *how]
    return [*start, "--module", module, str(job), str(launch.processes)]


def run_processes(launch: Launch, module: str, job: Path) -> None:
    """Start a job's processes and wait for them.

    Raises:
        InputError: what one of them says about the user's input.
        RuntimeError: they failed.
    """
    (job / FAULT).unlink(missing_ok=True)
    done = subprocess.run(launch_command(launch, module, job), check=False)
    if (job / FAULT).is_file():
        raise InputError((job / FAULT).read_text())
    if done.returncode:
        raise RuntimeError(f"the {launch.processes} processes of {job} ended with code {done.returncode}")


def process_main(work: Callable[[Path], None]) -> int:
    """Work on the job that the command line names, as one of its processes, and return the exit code."""
    job, wanted = Path(sys.argv[1]), int(sys.argv[2])
    try:
        check_processes(wanted)
        work(job)
    except InputError as error:
        write_text(job / FAULT, str(error))
        return 1
    return 0


def check_processes(wanted: int) -> None:
    """Check that this process has as many siblings as were asked for.

    Raises:
        InputError: accelerate started another number.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != wanted:
        raise InputError(
            f"accelerate started {started} processes where --accelerate_config says {wanted}; without MPI its "
            "MULTI_CPU starts one: write `distributed_type: MULTI_GPU` for processes on CPUs too"
        )
