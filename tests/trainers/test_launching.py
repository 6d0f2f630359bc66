"""The command that starts processes, and errors on both sides of it."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from trl_prune.errors import InputError
from trl_prune.trainers import launching
from trl_prune.trainers.launching import (
    ERROR_FILE,
    Launch,
    launch_command,
    process_main,
    resolve_launch,
    run_processes,
)


# MULTI_GPU for CPUs too, as accelerate needs MPI for MULTI_CPU. The trainer's `use_cpu` selects the device.
TWO_CPUS = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "num_machines": 1,
    "num_processes": 2,
    "machine_rank": 0,
    "main_process_port": 0,
    "mixed_precision": "no",
}


def config_file(folder, values=TWO_CPUS):
    path = folder / "two_cpus.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_launch_comes_from_a_file_a_shipped_config_or_the_gpus(tmp_path, monkeypatch):
    path = config_file(tmp_path)
    assert resolve_launch(str(path)) == Launch(2, path)
    shipped = resolve_launch("fsdp2")
    assert shipped.config.name == "fsdp2.yaml"
    assert {name: resolve_launch(name).shards for name in ("multi_gpu", "fsdp2", "zero2")} == {
        "multi_gpu": False,
        "fsdp2": True,
        "zero2": True,
    }
    assert shipped.processes == yaml.safe_load(shipped.config.read_text())["num_processes"]
    assert resolve_launch(str(config_file(tmp_path, {"use_cpu": True}))).processes == 1
    for count, expected in ((0, None), (1, None), (4, Launch(4))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert resolve_launch(None) == expected


@pytest.mark.parametrize(
    ("text", "message"), [("[", "is not an accelerate config"), ("num_processes: two", "is not an accelerate config")]
)
def test_an_invalid_config_file_is_refused(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        resolve_launch(str(tmp_path / "x.yaml"))


def test_an_unknown_config_name_is_refused():
    with pytest.raises(InputError, match="'fsdp3' is not a file; allowed: a path, or fsdp1, fsdp2, multi_gpu"):
        resolve_launch("fsdp3")


def test_the_command_is_accelerate_launch(tmp_path):
    start = [sys.executable, "-m", "accelerate.commands.launch"]
    end = ["--module", "a.module", "job", "2"]
    command = launch_command(Launch(2, tmp_path / "a.yaml"), "a.module", Path("job"))
    assert command == [*start, "--config_file", str(tmp_path / "a.yaml"), *end]
    command = launch_command(Launch(4), "a.module", Path("job"))
    assert command[: len(start)] == start
    assert command[-4:] == ["--module", "a.module", "job", "4"]
    assert command[command.index("--num_processes") + 1] == "4"
    assert "--multi_gpu" in command


def replace_processes(monkeypatch, code=0, error=None):
    def run(command, check):
        if error:
            (Path(command[-2]) / ERROR_FILE).write_text(error)
        return type("Completed", (), {"returncode": code})

    monkeypatch.setattr(launching.subprocess, "run", run)


def test_errors_of_processes_are_raised(tmp_path, monkeypatch):
    replace_processes(monkeypatch, 1, "the rows are wrong")
    with pytest.raises(InputError, match="the rows are wrong"):
        run_processes(Launch(2), "a.module", tmp_path)
    replace_processes(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="the 2 processes of .* ended with code 3"):
        run_processes(Launch(2), "a.module", tmp_path)
    replace_processes(monkeypatch)
    run_processes(Launch(2), "a.module", tmp_path)
    assert not (tmp_path / ERROR_FILE).exists()


def test_a_process_writes_its_input_error_to_the_job_folder(tmp_path, monkeypatch):
    def refuse(job_dir):
        raise InputError(f"{job_dir.name} is wrong")

    monkeypatch.setattr(sys, "argv", ["module", str(tmp_path / "job"), "1"])
    (tmp_path / "job").mkdir()
    assert process_main(refuse) == 1
    assert (tmp_path / "job" / ERROR_FILE).read_text() == "job is wrong"
    assert process_main(lambda job_dir: None) == 0


def test_too_few_processes_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["module", str(tmp_path), "2"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert process_main(lambda job_dir: pytest.fail("the job ran")) == 1
    assert "started 1 processes where --accelerate_config states 2" in (tmp_path / ERROR_FILE).read_text()
