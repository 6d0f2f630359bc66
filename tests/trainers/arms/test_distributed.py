"""An arm's processes get its settings unchanged and train the model that one process trains."""

import json

import pytest
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS, tiny_tokenizer
from tests.trainers.test_launching import TWO_CPUS, config_file
from trl_prune import cache_teacher
from trl_prune.errors import InputError
from trl_prune.trainers import launching
from trl_prune.trainers.arms.distributed import RESULT, arm_lock, read_job, train_distributed
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import TrainingResult, train_arm
from trl_prune.trainers.launching import Launch, resolve_launch
from trl_prune.trainers.preparation import prepare_source


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


def test_settings_and_result_pass_through_the_job_folder_unchanged(dense, pruned, tmp_path, monkeypatch):
    settings = ArmSettings(pruned, tmp_path / "out", ARGS, {"r": 2}, 100, "kd", dense)
    result = TrainingResult([], 1, 1, 1, None)
    jobs = []

    def run(command, check):
        assert command[command.index("--module") + 1] == "trl_prune.trainers.arms.distributed"
        jobs.append(read_job(tmp_path / "out-job"))
        (tmp_path / "out-job" / RESULT).write_text(json.dumps(vars(result)))
        return type("Completed", (), {"returncode": 0})

    monkeypatch.setattr(launching.subprocess, "run", run)
    assert train_distributed(settings, Dataset.from_list(ROWS), tmp_path / "model", Launch(2)) == result
    assert jobs == [(settings, tmp_path / "model")]
    assert not (tmp_path / "out-job").exists()


def cached_rows(dense, tmp_path):
    """Return rows in TRL's format, and the options of an arm that distils from a cache of them."""
    rows = Dataset.from_list(ROWS)
    return rows, {
        "method": "kd",
        "teacher_cache": cache_teacher(str(dense), rows, tmp_path / "cache", args=ARGS).folder,
    }


def mixed_rows(dense, tmp_path):
    """Return rows of two loss masks as tokens, and the options of an arm of SFT."""
    args = {name: ARGS[name] for name in ARGS if name != "hidden_loss"}
    parts = [prepare_source(Dataset.from_list(ROWS), args, tiny_tokenizer(), every) for every in (False, True)]
    return concatenate_datasets(parts).shuffle(seed=0), {"method": "sft"}


@pytest.mark.slow
@pytest.mark.parametrize("make_rows", [cached_rows, mixed_rows])
def test_two_processes_train_the_model_that_one_trains(dense, pruned, tmp_path, make_rows):
    """Accelerate starts two processes on CPUs, each with half the batch, that read one file of rows."""
    launch = resolve_launch(str(config_file(tmp_path)))
    rows, options = make_rows(dense, tmp_path)
    args = ARGS if options["method"] == "kd" else {name: ARGS[name] for name in ARGS if name != "hidden_loss"}
    single, distributed = (
        ArmSettings(pruned, tmp_path / name, args | {"per_device_train_batch_size": size}, **options)
        for name, size in (("single", 4), ("distributed", 2))
    )
    expected = train_arm(single, rows, tmp_path / "expected")
    result = train_distributed(distributed, rows, tmp_path / "model", launch)
    assert (result.steps, result.tokens) == (expected.steps, expected.tokens)
    assert result.final_loss == pytest.approx(expected.final_loss, rel=1e-3)
    start, expected_weights, weights = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (pruned, tmp_path / "expected", tmp_path / "model")
    )
    update = sum(float((expected_weights[name] - start[name]).square().sum()) for name in start)
    error = sum(float((expected_weights[name] - weights[name]).square().sum()) for name in start)
    assert error < 1e-3 * update
    assert not (tmp_path / "distributed-job").exists()


@pytest.mark.slow
def test_two_processes_share_a_budget_in_minutes_and_its_measurements(dense, pruned, tmp_path):
    args = ARGS | {"max_steps": -1, "lr_scheduler_type": "warmup_stable_decay", "per_device_train_batch_size": 2}
    settings = ArmSettings(pruned, tmp_path / "arm", args, None, None, "kd", dense, minutes=0.1, validation=4)
    launch = resolve_launch(str(config_file(tmp_path)))
    result = train_distributed(settings, Dataset.from_list(ROWS), tmp_path / "model", launch)
    assert result.steps * seconds_per_step(tmp_path / "arm-time.json") < 1.2 * 6
    assert len({step for step, *_ in result.curve["points"]}) == 7
    assert result.curve["metric"] == "kl"


def seconds_per_step(record):
    return json.loads(record.read_text())["seconds_per_step"]


def test_an_arm_that_other_processes_train_is_refused(pruned, tmp_path):
    refusal = pytest.raises(InputError, match="processes of an earlier command are still training")
    with arm_lock(tmp_path / "model"), refusal, arm_lock(tmp_path / "model"):
        pass
    with arm_lock(tmp_path / "model"):
        pass


@pytest.mark.slow
def test_too_few_processes_are_refused(dense, pruned, tmp_path):
    settings = ArmSettings(pruned, tmp_path / "out", ARGS, None, None, "kd", dense)
    path = config_file(tmp_path, TWO_CPUS | {"distributed_type": "MULTI_CPU", "use_cpu": True})
    with pytest.raises(InputError, match="started 1 processes where --accelerate_config states 2"):
        train_distributed(settings, Dataset.from_list(ROWS), tmp_path / "model", resolve_launch(str(path)))


@pytest.mark.slow
def test_an_input_error_of_a_process_is_raised(dense, pruned, tmp_path):
    settings = ArmSettings(pruned, tmp_path / "out", ARGS, None, None, "kd", dense, tmp_path / "no-cache")
    launch = resolve_launch(str(config_file(tmp_path)))
    with pytest.raises(InputError, match="is not a teacher cache"):
        train_distributed(settings, Dataset.from_list(ROWS), tmp_path / "model", launch)
