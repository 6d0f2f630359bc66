import pytest
import torch
from datasets import Dataset

from tests.conftest import ROWS
from tests.trainers.arms.test_training import ARGS, Killed, killed_once, weights
from trl_prune.errors import InputError
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import KDTrainer, build_trainer, train_arm
from trl_prune.trainers.arms.validation import MEASURED_AT, split_validation
from trl_prune.trainers.checked import DECAY_SHARE
from trl_prune.trainers.kd import trainer


SCHEDULE = {"warmup_steps": 1, "max_steps": 16}


def kd_settings(dense, pruned, tmp_path, name="arm", **changes):
    return ArmSettings(pruned, tmp_path / name, ARGS | SCHEDULE, method="kd", teacher=dense, validation=4, **changes)


def test_local_distillation_leaves_the_rows_that_another_arm_measures(dense, pruned, tmp_path):
    """Of the arms of `recover: auto` the second one goes on from the first, and is measured on rows new to both."""
    local = ArmSettings(pruned, tmp_path / "local", ARGS, method="local_kd", teacher=dense, validation=4)
    first, second = (
        build_trainer(arm, Dataset.from_list(ROWS)) for arm in (local, kd_settings(dense, pruned, tmp_path))
    )
    assert len(first.train_dataset) == len(ROWS) - 4
    held_out = {tuple(ids) for ids in second.eval_dataset["input_ids"]}
    assert len(held_out) == 4
    assert not held_out & {tuple(ids) for ids in first.train_dataset["input_ids"]}
    assert first.eval_dataset is None


@pytest.fixture(scope="module")
def measured(dense, pruned, tmp_path_factory):
    """The result of an arm of distillation that was measured, and its model."""
    folder = tmp_path_factory.mktemp("measured")
    return train_arm(kd_settings(dense, pruned, folder), Dataset.from_list(ROWS), folder / "model"), folder / "model"


def test_an_arm_is_measured_from_its_start_to_its_end(measured):
    result, _ = measured
    assert result.curve["metric"] == "kl"
    tokens, values, rates = zip(*result.curve["points"], strict=True)
    assert len(tokens) == 7
    assert tokens[0] == 0
    assert list(tokens) == sorted(tokens)
    assert tokens[-1] == result.tokens
    assert all(value > 0 for value in values)
    # The start, five points at the peak rate, and the last one in the decay.
    assert rates[:-1] == (0.0, *[pytest.approx(1e-3)] * 5)
    assert 0 < rates[-1] < 0.5e-3


def test_the_curve_starts_at_the_pruned_model_and_ends_at_the_recovered_one(dense, pruned, measured, tmp_path):
    """A trainer's own evaluation of the same rows, as an independent measurement."""
    result, model = measured
    rows = Dataset.from_list(ROWS)
    for student, point in ((pruned, result.curve["points"][0]), (model, result.curve["points"][-1])):
        settings = kd_settings(dense, student, tmp_path, name=student.parent.name)
        assert build_trainer(settings, rows).evaluate()["eval_kl"] == pytest.approx(point[1], rel=1e-3)


def test_measuring_changes_no_weight(dense, pruned, measured, tmp_path):
    rows, _ = split_validation(Dataset.from_list(ROWS), 4, 42)
    args = ARGS | SCHEDULE | {"lr_scheduler_type": "warmup_stable_decay"}
    settings = ArmSettings(pruned, tmp_path / "arm", args, method="kd", teacher=dense)
    result = train_arm(settings, rows, tmp_path / "model")
    assert result.curve is None
    expected = weights(tmp_path / "model")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(measured[1]).items())


def test_fine_tuning_is_measured_by_its_cross_entropy(pruned, tmp_path):
    settings = ArmSettings(pruned, tmp_path / "arm", ARGS | SCHEDULE, validation=4)
    result = train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model")
    assert result.curve["metric"] == "ce"
    assert len(result.curve["points"]) == 7


def test_a_resumed_arm_has_the_same_curve(dense, pruned, measured, tmp_path, monkeypatch):
    killed_once(monkeypatch, KDTrainer, 11)
    settings = kd_settings(dense, pruned, tmp_path)
    with pytest.raises(Killed):
        train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model")
    assert train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model") == measured[0]
    expected = weights(measured[1])
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(tmp_path / "model").items())


def test_rows_to_train_on_are_left():
    rows = Dataset.from_list(ROWS)
    training, validation = split_validation(rows, len(rows) - 1, 0)
    assert (len(training), len(validation)) == (1, len(rows) - 1)
    assert split_validation(rows, None, 0) == (rows, None)
    with pytest.raises(InputError, match=rf"validation is {len(rows)}, and there are {len(rows)} rows"):
        split_validation(rows, len(rows), 0)


def test_the_points_before_the_last_come_before_the_decay():
    assert MEASURED_AT[-2] <= 1 - DECAY_SHARE < MEASURED_AT[-1] == 1


def test_validation_rows_without_an_answer_to_measure_are_refused(dense, pruned, tmp_path):
    long_prompt = [{"role": "user", "content": "word " * 500}]
    rows = Dataset.from_list([*ROWS[:4], *[row | {"prompt": long_prompt} for row in ROWS[:1]]])
    settings = ArmSettings(pruned, tmp_path / "arm", ARGS | {"max_length": 96, "seed": seed_of(rows)}, validation=1)
    with pytest.raises(InputError, match="the prompts of all 1 validation rows fill max_length 96"):
        train_arm(settings, rows, tmp_path / "model")


def seed_of(rows):
    """Return a seed that draws the last row for validation."""
    last = rows[len(rows) - 1]
    return next(seed for seed in range(100) if split_validation(rows, 1, seed)[1][0] == last)


def test_a_teacher_is_corrected_once_for_an_arm_that_is_timed_and_measured(dense, pruned, tmp_path, monkeypatch):
    corrected = []
    correct_teacher = trainer.correct_teacher
    monkeypatch.setattr(trainer, "correct_teacher", lambda *args: corrected.append(1) or correct_teacher(*args))
    args = ARGS | {"teacher_correction": "norms", "teacher_correction_args": {"max_steps": 1}}
    settings = ArmSettings(pruned, tmp_path / "arm", args, method="kd", teacher=dense, validation=4, minutes=0.03)
    result = train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model")
    assert corrected == [1]
    assert result.curve["metric"] == "kl"
