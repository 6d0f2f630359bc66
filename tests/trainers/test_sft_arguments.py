"""Oracle: SFTTrainer's signature and the fields of its config classes."""

import inspect
from dataclasses import dataclass, fields

import pytest
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from trl_prune import KDConfig
from trl_prune.trainers.sft_arguments import convert_config, named_arguments


def test_positional_arguments_get_their_names():
    names = list(inspect.signature(SFTTrainer.__init__).parameters)[1:]
    remaining = names[names.index("train_dataset") + 1 :]
    assert named_arguments(tuple(remaining), {}) == {name: name for name in remaining}
    first, second = remaining[:2]
    assert named_arguments((first,), {second: 2}) == {first: first, second: 2}


@pytest.mark.parametrize(("args", "kwargs"), [((1, 2), {"eval_dataset": 3}), (tuple(range(99)), {})])
def test_too_many_or_repeated_arguments_are_refused(args, kwargs):
    with pytest.raises(TypeError, match="each at most once"):
        named_arguments(args, kwargs)


def test_an_instance_of_the_class_is_returned_as_it_is():
    args = KDConfig("out", use_cpu=True, bf16=False)
    assert convert_config(KDConfig, args, "model", "KD") is args


def test_defaults_have_an_output_dir_named_after_the_model():
    @dataclass
    class OnCPU(KDConfig):
        use_cpu: bool = True
        bf16: bool | None = False

    assert convert_config(OnCPU, None, "someone/model", "KD").output_dir == "model-KD"


def test_fields_of_the_users_subclass_are_dropped():
    @dataclass
    class UserConfig(SFTConfig):
        flag: int = 3

    args = UserConfig("out", use_cpu=True, bf16=False, learning_rate=3e-3)
    assert convert_config(KDConfig, args, "model", "KD").learning_rate == 3e-3


@pytest.mark.parametrize("config_class", [TrainingArguments, SFTConfig])
def test_every_field_of_another_class_is_kept(config_class):
    """Including tokens, which `to_dict` hides."""
    args = config_class(
        "out", use_cpu=True, bf16=False, hub_token="secret", learning_rate=3e-3, warmup_steps=7, seed=9
    )
    converted = convert_config(KDConfig, args, "model", "KD")
    assert isinstance(converted, KDConfig)
    names = [field.name for field in fields(config_class) if field.init]
    assert {name: getattr(converted, name) for name in names} == {name: getattr(args, name) for name in names}
