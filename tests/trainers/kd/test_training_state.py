"""The state that only training needs is restored bit for bit."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.kd.projection import PROJECTION, attach_projection
from trl_prune.trainers.kd.training_state import STATE_FILE, read_state, write_state


def student_with_projection(seed):
    student = tiny_model("llama")
    attach_projection(student, 48, None, seed)
    return student


def hidden_weight(value):
    weight = HiddenWeight(None)
    weight.resume(value)
    return weight


def test_the_state_is_restored(tmp_path):
    student, resumed = student_with_projection(0), student_with_projection(1)
    write_state(student, hidden_weight(0.1 + 0.2), tmp_path, should_save=True)
    weight = HiddenWeight(None)
    read_state(resumed, weight, tmp_path)
    assert weight.value == 0.1 + 0.2
    assert torch.equal(getattr(resumed, PROJECTION).weight, getattr(student, PROJECTION).weight)


def test_a_sharded_projection_is_written_and_restored(tmp_path):
    student, resumed = student_with_projection(0), student_with_projection(1)
    weight = getattr(student, PROJECTION).weight.detach().clone()
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        for model in (student, resumed):
            fully_shard(getattr(model, PROJECTION), mesh=init_device_mesh("cpu", (1,)))
        write_state(student, hidden_weight(1.0), tmp_path, should_save=True)
        read_state(resumed, HiddenWeight(None), tmp_path)
        restored = getattr(resumed, PROJECTION).weight.full_tensor()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(restored, weight)


def test_only_the_saving_rank_writes(tmp_path):
    write_state(student_with_projection(0), hidden_weight(1.0), tmp_path, should_save=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_the_state(tmp_path):
    with pytest.raises(InputError, match=f"has no {STATE_FILE}: it was not written by a KDTrainer that compares"):
        read_state(student_with_projection(0), HiddenWeight(None), tmp_path)
