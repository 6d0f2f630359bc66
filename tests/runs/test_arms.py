"""What arms are trained with."""

from contextlib import nullcontext

import pytest

from tests.conftest import save_tiny
from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.evaluation.efficiency import Size
from trl_prune.recipe import parse_recipe
from trl_prune.runs.arms import check_training, training_args
from trl_prune.runs.context import Run
from trl_prune.stages import recover
from trl_prune.trainers.launching import resolve_launch


def arm_of(folder, family, **args):
    values = recipe_values(folder)
    model = save_tiny(folder / family, family, **({"max_position_embeddings": 256} if family == "gpt2" else {}))
    values |= {"model": str(model), "recover": {"arm": {"data": "references", "args": args}}}
    run = Run(parse_recipe(values, "test"))
    return run, run.recipe.recover["arm"]


def test_texts_end_at_a_table_of_positions(tmp_path):
    run, arm = arm_of(tmp_path, "gpt2")  # 256 positions
    assert training_args(run, arm, "float32")["max_length"] == 256
    check_training(run, arm, "recover.arm")
    for length, shown in ((300, "300"), (None, "null")):
        run, arm = arm_of(tmp_path, "gpt2", max_length=length)
        with pytest.raises(InputError, match=f"recover.arm.args.max_length is {shown}; wanted: at most 256, the posi"):
            check_training(run, arm, "recover.arm")


def test_models_that_compute_positions_may_read_further(tmp_path):
    run, arm = arm_of(tmp_path, "llama", max_length=5000)
    check_training(run, arm, "recover.arm")
    assert "max_length" not in training_args(*arm_of(tmp_path, "llama"), "float32")


@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
def test_tokens_of_an_arm_are_the_tokenizers(tmp_path, name):
    check_training(*arm_of(tmp_path, "llama", **{name: "<|im_end|>"}), "recover.arm")
    with pytest.raises(
        InputError, match=rf"recover.arm.args.{name} is '<\|end\|>', which is no token of the tokenizer"
    ):
        check_training(*arm_of(tmp_path, "llama", **{name: "<|end|>"}), "recover.arm")


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({}, "3 epochs"),
        ({"args": {"num_train_epochs": 2}}, "2 epochs"),
        ({"args": {"max_steps": 1500}}, "1,500 steps"),
        ({"tokens": 5000}, "5,000 tokens"),
        ({"tokens": 5000, "args": {"max_steps": 7}}, "7 steps"),
    ],
)
def test_the_plan_says_how_long_an_arm_is_trained(tmp_path, arm, expected):
    values = recipe_values(tmp_path) | {"recover": {"arm": {"data": "references"} | arm}}
    assert f" on references, {expected}, all weights" in recover.describe(Run(parse_recipe(values, "test")), "arm")


@pytest.mark.parametrize(
    ("parameters", "changes", "rate"),
    [
        (494_000_000, {"peft": {"r": 4}}, 1e-3),
        (8_030_000_000, {"peft": {"r": 4}}, 1e-4),
        (8_030_000_000, {"peft": {"r": 4}, "init": "first"}, 5e-5),
        (135_000_000, {}, 2e-4),
        (8_030_000_000, {}, 2e-5),
        (135_000_000, {"method": "local_kd"}, 1e-3),
        (494_000_000, {"method": "local_kd"}, 1e-4),
        (8_030_000_000, {"method": "local_kd"}, 2e-5),
    ],
)
def test_a_rate_that_is_left_open_goes_by_the_models_size(tmp_path, monkeypatch, parameters, changes, rate):
    run, arm = arm_of(tmp_path, "llama", learning_rate="auto")
    arm = arm.model_copy(update=changes)
    monkeypatch.setattr(run, "size", lambda: Size(parameters, 0.0))
    assert training_args(run, arm, "float32")["learning_rate"] == rate
    check_training(run, arm, "recover.arm")


def test_a_rate_is_kept(tmp_path):
    assert training_args(*arm_of(tmp_path, "llama", learning_rate=3e-4), "float32")["learning_rate"] == 3e-4
    assert "learning_rate" not in training_args(*arm_of(tmp_path, "llama"), "float32")


def test_what_needs_whole_weights_is_refused_where_processes_hold_parts(tmp_path):
    run, arm = arm_of(tmp_path, "llama", freeze_shared_blocks=True)
    local = arm.model_copy(update={"method": "local_kd", "args": {}})
    corrected = arm.model_copy(update={"method": "kd", "args": {"teacher_correction": "norms"}})
    tried_arms = {"args.freeze_shared_blocks": arm, "method local_kd": local, "args.teacher_correction": corrected}
    for name, refused in (("multi_gpu", False), ("fsdp2", True), ("zero3", True)):
        launched = Run(run.recipe, resolve_launch(name))
        for key, tried in tried_arms.items():
            message = rf"recover.arm.{key} works in one process or under DDP, and .*{name}.yaml is for FSDP or DeepSp"
            with pytest.raises(InputError, match=message) if refused else nullcontext():
                check_training(launched, tried, "recover.arm")
