"""An arm's plan reaches its processes whole, and they learn what one learns."""

import json

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS
from tests.trainers.test_launching import TWO_CPUS, config_file
from trl_prune import cache_teacher
from trl_prune.checkpoints import dense_root
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers import launching
from trl_prune.trainers.arms.launched import arm_lock, read_job, train_launched
from trl_prune.trainers.arms.plan import ArmPlan
from trl_prune.trainers.arms.training import Trained, train_arm
from trl_prune.trainers.launching import Launch, find_launch


ARGS = {
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 2,
    "save_steps": 2,
    "num_train_epochs": 1,
    "gradient_checkpointing": False,
    "learning_rate": 1e-3,
    "max_length": 96,
    "hidden_loss": "none",
}


@pytest.fixture
def pruned(dense, tmp_path):
    prune_checkpoint(dense, tmp_path / "pruned", {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return tmp_path / "pruned"


def test_a_plan_reaches_its_processes_whole(dense, pruned, tmp_path, monkeypatch):
    plan = ArmPlan(pruned, tmp_path / "out", ARGS, {"r": 2}, 100, "kd", dense)
    seen = []

    def processes(command, check):
        seen.append(read_job(tmp_path / "out-job"))
        (tmp_path / "out-job" / "trained.json").write_text(json.dumps(vars(Trained([], 1, 1, 1, None))))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(launching.subprocess, "run", processes)
    assert train_launched(plan, Dataset.from_list(ROWS), tmp_path / "model", Launch(2)) == Trained([], 1, 1, 1, None)
    assert seen == [(plan, tmp_path / "model")]
    assert not (tmp_path / "out-job").exists()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(dense, pruned, tmp_path):
    """Half the batch on each of two processes; really started, by accelerate, on CPUs, both reading one cache."""
    rows, launch = Dataset.from_list(ROWS), find_launch(str(config_file(tmp_path)))
    cache = cache_teacher(str(dense), rows, tmp_path / "cache", args=ARGS).folder
    one = ArmPlan(
        pruned, tmp_path / "one", ARGS | {"per_device_train_batch_size": 4}, method="kd", teacher_cache=cache
    )
    two = ArmPlan(
        pruned, tmp_path / "two", ARGS | {"per_device_train_batch_size": 2}, method="kd", teacher_cache=cache
    )
    alone = train_arm(one, rows, tmp_path / "alone")
    together = train_launched(two, rows, tmp_path / "together", launch)
    assert (together.steps, together.tokens) == (alone.steps, alone.tokens)
    assert together.final_loss == pytest.approx(alone.final_loss, rel=1e-3)
    wanted, told = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("alone", "together")
    )
    start = AutoModelForCausalLM.from_pretrained(pruned).state_dict()
    moved = sum(float((wanted[name] - start[name]).square().sum()) for name in wanted)
    apart = sum(float((wanted[name] - told[name]).square().sum()) for name in wanted)
    assert apart < 1e-3 * moved
    assert not (tmp_path / "two-job").exists()


def test_an_arm_that_others_train_is_left_alone(pruned, tmp_path):
    refused = pytest.raises(InputError, match="processes of an earlier command still train")
    with arm_lock(tmp_path / "model"), refused, arm_lock(tmp_path / "model"):
        pass
    with arm_lock(tmp_path / "model"):
        pass


@pytest.mark.slow
def test_processes_that_did_not_start_are_missed(dense, pruned, tmp_path):
    plan = ArmPlan(pruned, tmp_path / "out", ARGS, None, None, "kd", dense)
    path = config_file(tmp_path, TWO_CPUS | {"distributed_type": "MULTI_CPU", "use_cpu": True})
    with pytest.raises(InputError, match="started 1 processes where --accelerate_config says 2"):
        train_launched(plan, Dataset.from_list(ROWS), tmp_path / "model", find_launch(str(path)))


@pytest.mark.slow
def test_what_a_process_says_about_the_input_is_said_here(dense, pruned, tmp_path):
    plan = ArmPlan(pruned, tmp_path / "out", ARGS, None, None, "kd", dense, tmp_path / "no-cache")
    with pytest.raises(InputError, match="is no teacher cache"):
        train_launched(plan, Dataset.from_list(ROWS), tmp_path / "model", find_launch(str(config_file(tmp_path))))
