"""How processes start, and what is said where they cannot."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from trl_prune.errors import InputError
from trl_prune.trainers import launching
from trl_prune.trainers.launching import FAULT, Launch, find_launch, launch_command, process_main, run_processes


# On CPUs too: accelerate has MPI start what it calls MULTI_CPU. The arms' own `use_cpu` decides where they run.
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


def test_processes_are_found_where_the_user_says(tmp_path, monkeypatch):
    path = config_file(tmp_path)
    assert find_launch(str(path)) == Launch(2, path)
    shipped = find_launch("fsdp2")
    assert shipped.config.name == "fsdp2.yaml"
    assert shipped.processes == yaml.safe_load(shipped.config.read_text())["num_processes"]
    assert find_launch(str(config_file(tmp_path, {"use_cpu": True}))).processes == 1
    for count, wanted in ((0, None), (1, None), (4, Launch(4))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert find_launch(None) == wanted


@pytest.mark.parametrize(
    ("text", "message"), [("[", "is no accelerate config"), ("num_processes: two", "is no accel")]
)
def test_a_file_that_is_no_config_is_refused(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        find_launch(str(tmp_path / "x.yaml"))


def test_a_name_that_nobody_ships_is_refused():
    with pytest.raises(InputError, match="'fsdp3' is no file here; allowed: a file, or fsdp1, fsdp2, multi_gpu"):
        find_launch("fsdp3")


def test_the_command_is_accelerates(tmp_path):
    start = [sys.executable, "-m", "accelerate.commands.launch"]
    end = ["--module", "a.module", "job", "2"]
    told = launch_command(Launch(2, tmp_path / "a.yaml"), "a.module", Path("job"))
    assert told == [*start, "--config_file", str(tmp_path / "a.yaml"), *end]
    told = launch_command(Launch(4), "a.module", Path("job"))
    assert told[: len(start)] == start
    assert told[-4:] == ["--module", "a.module", "job", "4"]
    assert told[told.index("--num_processes") + 1] == "4"
    assert "--multi_gpu" in told


def ended(monkeypatch, code=0, fault=None):
    def processes(command, check):
        if fault:
            (Path(command[-2]) / FAULT).write_text(fault)
        return type("Done", (), {"returncode": code})

    monkeypatch.setattr(launching.subprocess, "run", processes)


def test_faults_of_processes_are_told_here(tmp_path, monkeypatch):
    ended(monkeypatch, 1, "the rows are wrong")
    with pytest.raises(InputError, match="the rows are wrong"):
        run_processes(Launch(2), "a.module", tmp_path)
    ended(monkeypatch, 3)
    with pytest.raises(RuntimeError, match="the 2 processes of .* ended with code 3"):
        run_processes(Launch(2), "a.module", tmp_path)
    ended(monkeypatch)
    run_processes(Launch(2), "a.module", tmp_path)
    assert not (tmp_path / FAULT).exists()


def test_a_process_writes_its_fault_down(tmp_path, monkeypatch):
    def refuse(job):
        raise InputError(f"{job.name} is wrong")

    monkeypatch.setattr(sys, "argv", ["module", str(tmp_path / "job"), "1"])
    (tmp_path / "job").mkdir()
    assert process_main(refuse) == 1
    assert (tmp_path / "job" / FAULT).read_text() == "job is wrong"
    assert process_main(lambda job: None) == 0


def test_processes_that_did_not_start_are_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["module", str(tmp_path), "2"])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert process_main(lambda job: pytest.fail("it worked")) == 1
    assert "started 1 processes where --accelerate_config says 2" in (tmp_path / FAULT).read_text()
