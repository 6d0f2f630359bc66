import pytest

from trl_prune.errors import InputError
from trl_prune.trainers.arms.checks import check_arm


ON_CPU = {"use_cpu": True, "bf16": False}


@pytest.mark.parametrize(
    ("args", "peft", "message"),
    [
        (
            {"learning_rat": 1},
            None,
            "args.learning_rat is not an accepted argument; did you mean 'args.learning_rate'?",
        ),
        ({"output_dir": "x"}, None, "args.output_dir is not an accepted argument"),
        ({}, {"rank": 8}, "peft.rank is not an accepted argument; did you mean 'peft.r'?"),
        ({"lr": 1}, None, "args.lr is not an accepted argument; did you mean 'args.learning_rate'?"),
        ({"batch_size": 2}, None, "did you mean 'args.per_device_train_batch_size'?"),
        ({"lora_r": 2}, None, "args.lora_r is not an accepted argument; did you mean 'peft.r'?"),
        ({"hidden_loss": "none"}, None, "args.hidden_loss is not an accepted argument; `method: kd` accepts it"),
        ({"rewrite_batch_size": 2}, None, "args.rewrite_batch_size is not an accepted argument"),
        ({"lr_scheduler_type": "wavy"}, None, "wavy"),
        ({"save_strategy": "sometimes"}, None, "sometimes"),
        ({}, {"target_modules": ["lm_head"]}, "peft.target_modules has 'lm_head', whose products are fused"),
        ({}, {"modules_to_save": ["lm_head"]}, "peft.modules_to_save has 'lm_head'"),
    ],
)
def test_invalid_arguments_are_named(args, peft, message):
    with pytest.raises(InputError) as error:
        check_arm(ON_CPU | args, peft)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"save_steps": 5, "logging_steps": 2}, "args.save_steps is 5; wanted: a multiple of logging_steps (2)"),
        ({"train_sampling_strategy": "group_by_length"}, "does not resume to the same batches"),
        ({"eval_strategy": "steps"}, "args.eval_strategy is not an accepted argument"),
        ({"fp16": True, "bf16": True}, "args:"),
        (
            {"padding_free": True},
            "args.padding_free needs args.max_length null or args.packing, and max_length is 1024",
        ),
        ({"loss_type": "mse"}, "args.loss_type is 'mse'; wanted: nll or dft"),
        (
            {"gradient_checkpointing": False, "gradient_checkpointing_kwargs": {"selective": True}},
            "args.gradient_checkpointing_kwargs.selective needs args.gradient_checkpointing",
        ),
    ],
)
def test_arguments_that_would_break_a_resume_or_fail_late_are_refused(args, message):
    with pytest.raises(InputError) as error:
        check_arm(ON_CPU | args, None)
    assert message in str(error.value)


def test_valid_arguments_pass():
    check_arm(ON_CPU | {"learning_rate": 1e-4, "packing": False}, {"r": 4, "lora_alpha": 8})
    check_arm(ON_CPU | {"padding_free": True, "max_length": None, "loss_type": "dft"}, None)


def test_a_layer_map_beyond_the_dense_model_is_refused_before_pruning():
    args = ON_CPU | {"layer_map": {0: 99}, "hidden_loss": ["block"]}
    with pytest.raises(InputError, match="layer_map names block 99 of the teacher, which has blocks 0 to 31"):
        check_arm(args, None, "kd", 32)
    check_arm(args | {"layer_map": {0: 31}}, None, "kd", 32)
