"""Training stops at the first step without numbers, which transformers hides, and before one that cannot be saved."""

import pytest
from datasets import Dataset

from tests.conftest import ROWS, rewrite_tensors, save_tiny
from tests.trainers.arms.test_training import ARGS, arm_settings
from trl_prune.errors import InputError
from trl_prune.trainers.arms.training import build_trainer, train_arm


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def student(tmp_path):
    return save_tiny(tmp_path / "student", num_hidden_layers=2)


@pytest.mark.parametrize("peft", [None, pytest.param({"r": 2}, marks=pytest.mark.slow)])
def test_a_student_with_nan_stops_at_its_first_step_and_its_weight_is_named(student, tmp_path, peft):
    rewrite_tensors(student, lambda tensors: tensors[UP].view(-1)[5].fill_(float("nan")))
    with pytest.raises(
        InputError, match="stopped at step 1, whose loss is nan: the weight .*up_proj.*NaN or infinite"
    ):
        train_arm(arm_settings(student, tmp_path, peft=peft), Dataset.from_list(ROWS), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_step_that_is_too_large_is_named(student, tmp_path):
    settings = arm_settings(student, tmp_path, args=ARGS | {"learning_rate": 1e38, "optim": "sgd", "max_grad_norm": 0})
    with pytest.raises(InputError, match=r"stopped at step \d, whose (loss|gradient norm) is (nan|inf)"):
        train_arm(settings, Dataset.from_list(ROWS), tmp_path / "model")


def test_a_gradient_that_is_no_number_is_found_where_the_loss_is_one(student, tmp_path):
    trainer = build_trainer(arm_settings(student, tmp_path), Dataset.from_list(ROWS))
    trainer.model.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        InputError, match="stopped at step 1, whose gradient norm is (nan|inf): lower args.learning_rate"
    ):
        trainer.train()


def test_a_config_that_cannot_be_saved_is_found_before_the_first_step(student, tmp_path, monkeypatch):
    def unsaveable(self, folder, **kwargs):
        raise ValueError("GenerationConfig is invalid: \n- one thing")

    monkeypatch.setattr("transformers.GenerationConfig.save_pretrained", unsaveable)
    monkeypatch.setattr("trl.SFTTrainer.train", lambda self, **kwargs: pytest.fail("it trained"))
    with pytest.raises(
        InputError, match="the GenerationConfig of .*student cannot be saved.*GenerationConfig is invalid"
    ):
        train_arm(arm_settings(student, tmp_path), Dataset.from_list(ROWS), tmp_path / "model")


def rates(trainer, steps):
    """Return the learning rate of every step of a training."""
    trainer.create_optimizer()
    trainer.lr_scheduler = None
    scheduler = trainer.create_scheduler(steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("args", "first", "last"),
    [
        ({}, 0, 80),
        ({"warmup_steps": 10}, 10, 80),
        ({"warmup_steps": 90}, 90, 90),
        ({"lr_scheduler_kwargs": {"num_decay_steps": 50}}, 0, 50),
        ({"lr_scheduler_kwargs": {"num_stable_steps": 30}, "warmup_steps": 10}, 10, 40),
    ],
)
def test_a_decay_of_a_fifth_need_not_be_asked_for(pruned_trainer, args, first, last):
    """Of 100 steps, the first and the last one at the peak rate; the last one's rate is that before its decay."""
    trainer = pruned_trainer({"lr_scheduler_type": "warmup_stable_decay", "learning_rate": 1.0} | args)
    found = rates(trainer, 100)
    assert [step for step, rate in enumerate(found) if rate == 1.0] == list(range(first, last + 1))
    assert found[-1] < 0.2


def test_the_length_of_the_decay_is_each_training_s_own(pruned_trainer):
    trainer = pruned_trainer({"lr_scheduler_type": "warmup_stable_decay", "learning_rate": 1.0})
    assert sum(rate == 1.0 for rate in rates(trainer, 5)) == 5
    assert sum(rate == 1.0 for rate in rates(trainer, 50)) == 41
    assert trainer.args.lr_scheduler_kwargs is None


@pytest.fixture
def pruned_trainer(student, tmp_path):
    def build(args):
        settings = arm_settings(student, tmp_path, args=ARGS | args)
        return build_trainer(settings, Dataset.from_list(ROWS))

    return build
