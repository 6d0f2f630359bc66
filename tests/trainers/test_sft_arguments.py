"""SFTTrainer's own signature is the truth."""

import inspect
from dataclasses import dataclass, fields

import pytest
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from trl_prune import KDConfig
from trl_prune.trainers.sft_arguments import by_name, own_config


def test_arguments_by_place_get_their_names():
    names = list(inspect.signature(SFTTrainer.__init__).parameters)[1:]
    rest = names[names.index("train_dataset") + 1 :]
    assert by_name(tuple(rest), {}) == {name: name for name in rest}
    assert by_name((rest[0],), {rest[1]: 2}) == {rest[0]: rest[0], rest[1]: 2}


@pytest.mark.parametrize(("rest", "more"), [((1, 2), {"eval_dataset": 3}), (tuple(range(99)), {})])
def test_too_many_or_twice(rest, more):
    with pytest.raises(TypeError, match="each of them once"):
        by_name(rest, more)


def test_own_arguments_stay():
    args = KDConfig("out", use_cpu=True, bf16=False)
    assert own_config(KDConfig, args, "model", "KD") is args


def test_no_arguments_are_named_after_the_model():
    @dataclass
    class OnCPU(KDConfig):
        use_cpu: bool = True
        bf16: bool | None = False

    assert own_config(OnCPU, None, "someone/model", "KD").output_dir == "model-KD"


def test_fields_of_a_users_own_are_left_to_the_user():
    @dataclass
    class Theirs(SFTConfig):
        flag: int = 3

    theirs = Theirs("out", use_cpu=True, bf16=False, learning_rate=3e-3)
    assert own_config(KDConfig, theirs, "model", "KD").learning_rate == 3e-3


@pytest.mark.parametrize("kind", [TrainingArguments, SFTConfig])
def test_every_field_of_others_is_kept(kind):
    """Tokens too, which `to_dict` hides."""
    theirs = kind("out", use_cpu=True, bf16=False, hub_token="secret", learning_rate=3e-3, warmup_steps=7, seed=9)
    ours = own_config(KDConfig, theirs, "model", "KD")
    assert isinstance(ours, KDConfig)
    names = [told.name for told in fields(kind) if told.init]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(theirs, name) for name in names}
