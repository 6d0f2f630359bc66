"""An arm trained by several processes: files carry the plan there and what came of it back."""

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
from trl_prune.trainers.arms.plan import ArmPlan
from trl_prune.trainers.arms.training import Trained, train_arm
from trl_prune.trainers.launching import Launch, process_main, run_processes


JOB, ROWS, RESULT = "plan.json", "rows", "trained.json"


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
        write_json(part / JOB, {"target": str(target), "plan": told})
    run_processes(launch, "trl_prune.trainers.arms.training.launched", job)
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


@contextmanager
def arm_lock(target: Path) -> Iterator[None]:
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


def work(job: Path) -> None:
    """Train the job's arm as one of its processes."""
    plan, target = read_job(job)
    with arm_lock(target):
        trained = train_arm(plan, load_from_disk(str(job / ROWS)), target)
    write_json(job / RESULT, asdict(trained))


if __name__ == "__main__":
    sys.exit(process_main(work))
