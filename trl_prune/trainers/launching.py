"""An arm trained by several processes: `accelerate launch` starts them, files carry the plan there and back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from datasets import Dataset, load_from_disk
from filelock import FileLock, Timeout

from trl_prune.checkpoints import atomic_folder, write_json, write_text
from trl_prune.errors import InputError, first_line
from trl_prune.trainers.arms import ArmPlan, Trained, train_arm


JOB, ROWS, RESULT, FAULT = "plan.json", "rows", "trained.json", "fault.txt"


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
    """Return how arms start: as a config says, on all GPUs where there are several, or here (None).

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


def launch_command(launch: Launch, job: Path) -> list[str]:
    """Return the command that starts an arm's processes."""
    everywhere = ["--multi_gpu", "--num_processes", str(launch.processes), "--num_machines", "1"]
    # Port 0: any that is free, so that two runs share a machine. Precision is the arm's own argument.
    everywhere += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no"]
    how = ["--config_file", str(launch.config)] if launch.config else everywhere
    start = [sys.executable, "-m", "accelerate.commands.launch", *how]
    return [*start, "--module", "trl_prune.trainers.launching", str(job)]


def train_launched(plan: ArmPlan, rows: Dataset, target: Path, launch: Launch) -> Trained:
    """Train an arm as `train_arm` does, in processes of its own.

    Raises:
        InputError: what a process says about the user's input.
        RuntimeError: the processes failed.
    """
    job = plan.output_dir.with_name(f"{plan.output_dir.name}-job")
    with atomic_folder(job) as part:
        rows.save_to_disk(part / ROWS)
        told = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
        write_json(part / JOB, {"target": str(target), "plan": told, "processes": launch.processes})
    done = subprocess.run(launch_command(launch, job), check=False)
    if (job / FAULT).is_file():
        raise InputError((job / FAULT).read_text())
    if done.returncode:
        raise RuntimeError(f"the {launch.processes} processes of {target.parent} ended with code {done.returncode}")
    trained = Trained(**json.loads((job / RESULT).read_text()))
    shutil.rmtree(job)
    return trained


def read_job(job: Path) -> tuple[ArmPlan, Path]:
    """Return the plan and the target that were written for the processes."""
    told = json.loads((job / JOB).read_text())
    plan = ArmPlan(**told["plan"])
    paths = {name: getattr(plan, name) for name in ("student", "output_dir", "teacher", "teacher_cache")}
    plan = replace(plan, **{name: Path(path) for name, path in paths.items() if path is not None})
    return plan, Path(told["target"])


def check_processes(job: Path) -> None:
    """Check that this process has as many siblings as were asked for.

    Raises:
        InputError: accelerate started another number.
    """
    wanted, started = json.loads((job / JOB).read_text())["processes"], int(os.environ.get("WORLD_SIZE", "1"))
    if started != wanted:
        raise InputError(
            f"accelerate started {started} processes where --accelerate_config says {wanted}; without MPI its "
            "MULTI_CPU starts one: write `distributed_type: MULTI_GPU` for processes on CPUs too"
        )


@contextmanager
def only_one(target: Path) -> Iterator[None]:
    """Hold an arm while its first process trains: processes outlive a command that was killed.

    Raises:
        InputError: others hold it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"processes of an earlier command still train {target}; wait for them or end them") from error


def main(job: Path) -> int:
    """Train an arm as one of its processes."""
    plan, target = read_job(job)
    try:
        check_processes(job)
        with only_one(target):
            trained = train_arm(plan, load_from_disk(str(job / ROWS)), target)
    except InputError as error:
        write_text(job / FAULT, str(error))
        return 1
    write_json(job / RESULT, asdict(trained))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
