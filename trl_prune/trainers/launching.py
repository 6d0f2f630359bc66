"""Run a job in several processes of `accelerate launch`; the job's folder passes its input to them and errors back."""

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


ERROR_FILE = "error.txt"
# accelerate's `distributed_type` of runs whose processes may hold parts of the weights.
SHARDING = ("FSDP", "DEEPSPEED")


@dataclass(frozen=True)
class Launch:
    """How `accelerate launch` is called.

    Attributes:
        processes: the number of processes.
        config: accelerate's config file; without one, each GPU of this machine gets a process.
        shards: whether it is by FSDP or DeepSpeed, where a process may hold a part of the weights only.
    """

    processes: int
    config: Path | None = None
    shards: bool = False


def resolve_launch(config: str | None) -> Launch | None:
    """Return the launch of a config, else one process per GPU where there are several; None for this process alone.

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
        raise InputError(f"--accelerate_config {config!r} is not a file; allowed: a path, or {', '.join(names)}")
    return _read_launch(path)


def _read_launch(path: Path) -> Launch:
    try:
        values = yaml.safe_load(path.read_text())
        return Launch(int(values.get("num_processes") or 1), path, values.get("distributed_type") in SHARDING)
    except (yaml.YAMLError, AttributeError, ValueError, OSError) as error:
        raise InputError(f"--accelerate_config {path} is not an accelerate config: {first_line(error)}") from error


def launch_command(launch: Launch, module: str, job_dir: Path) -> list[str]:
    """Return the command that starts a job's processes, each of which runs a module on the job's folder."""
    options = ["--multi_gpu", "--num_processes", str(launch.processes), "--num_machines", "1"]
    # Port 0: any free one, so that two runs can share a machine. Precision is an argument of the trainer.
    options += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    if launch.config is not None:
        options = ["--config_file", str(launch.config)]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", *options]
    return [*accelerate, "--module", module, str(job_dir), str(launch.processes)]


def run_processes(launch: Launch, module: str, job_dir: Path) -> None:
    """Start a job's processes and wait for them to end.

    Raises:
        InputError: the message of a process that raised one.
        RuntimeError: the processes failed.
    """
    error_path = job_dir / ERROR_FILE
    error_path.unlink(missing_ok=True)
    completed = subprocess.run(launch_command(launch, module, job_dir), check=False)
    if error_path.is_file():
        raise InputError(error_path.read_text())
    if completed.returncode:
        raise RuntimeError(f"the {launch.processes} processes of {job_dir} ended with code {completed.returncode}")


def process_main(run_job: Callable[[Path], None]) -> int:
    """Run the job that the command line names, as one of its processes, and return the exit code."""
    job_dir, processes = Path(sys.argv[1]), int(sys.argv[2])
    try:
        check_world_size(processes)
        run_job(job_dir)
    except InputError as error:
        write_text(job_dir / ERROR_FILE, str(error))
        return 1
    return 0


def check_world_size(processes: int) -> None:
    """Check that accelerate started the given number of processes.

    Raises:
        InputError: it started another number.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != processes:
        raise InputError(
            f"accelerate started {started} processes where --accelerate_config states {processes}; without MPI its "
            "MULTI_CPU starts one: write `distributed_type: MULTI_GPU` for processes on CPUs too"
        )
