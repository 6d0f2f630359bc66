"""Train an arm in several processes; a job folder passes its settings and rows to them and the result back."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from datasets import Dataset, load_from_disk
from filelock import FileLock, Timeout

from trl_prune.checkpoints import atomic_folder, write_json
from trl_prune.errors import InputError
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import TrainingResult, train_arm
from trl_prune.trainers.launching import Launch, process_main, run_processes


# Files of the job folder.
SETTINGS, ROWS, RESULT = "settings.json", "rows", "result.json"


def train_distributed(settings: ArmSettings, rows: Dataset, target: Path, launch: Launch) -> TrainingResult:
    """Train an arm as `train_arm` does, in processes of their own.

    Raises:
        InputError: the message of a process that raised one.
        RuntimeError: the processes failed.
    """
    job_dir = settings.output_dir.with_name(f"{settings.output_dir.name}-job")
    with atomic_folder(job_dir) as partial_dir:
        rows.save_to_disk(partial_dir / ROWS)
        values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(settings).items()}
        write_json(partial_dir / SETTINGS, {"target": str(target), "settings": values})
    run_processes(launch, __name__, job_dir)
    result = TrainingResult(**json.loads((job_dir / RESULT).read_text()))
    shutil.rmtree(job_dir)
    return result


def read_job(job_dir: Path) -> tuple[ArmSettings, Path]:
    """Return the settings and the target path of a job."""
    job = json.loads((job_dir / SETTINGS).read_text())
    settings = ArmSettings(**job["settings"])
    paths = {name: getattr(settings, name) for name in ("student", "output_dir", "teacher", "teacher_cache")}
    settings = replace(settings, **{name: Path(path) for name, path in paths.items() if path is not None})
    return settings, Path(job["target"])


@contextmanager
def arm_lock(target: Path) -> Iterator[None]:
    """Lock an arm while its first process trains: the processes outlive a command that was killed.

    Raises:
        InputError: processes of another command hold the lock.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"processes of an earlier command are still training {target}; wait for them or stop them"
        ) from error


def train_job(job_dir: Path) -> None:
    """Train the arm of a job as one of its processes."""
    settings, target = read_job(job_dir)
    with arm_lock(target):
        result = train_arm(settings, load_from_disk(str(job_dir / ROWS)), target)
    write_json(job_dir / RESULT, asdict(result))


if __name__ == "__main__":
    sys.exit(process_main(train_job))
