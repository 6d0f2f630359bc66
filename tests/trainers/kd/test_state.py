"""What only training needs comes back bit for bit, and stays out of checkpoints."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.trainers.kd.hidden_term import PROJECTION, attach_projection
from trl_prune.trainers.kd.hidden_weight import HiddenWeight
from trl_prune.trainers.kd.state import STATE, read_state, without_projection, write_state


def narrow(seed):
    student = tiny_model("llama")
    attach_projection(student, 48, None, seed)
    return student


def weight_of(value):
    weight = HiddenWeight(None)
    weight.resume(value)
    return weight


def test_what_is_written_is_read(tmp_path):
    student, other = narrow(0), narrow(1)
    write_state(student, weight_of(0.1 + 0.2), tmp_path, writes=True)
    weight = HiddenWeight(None)
    read_state(other, weight, tmp_path)
    assert weight.value == 0.1 + 0.2
    assert torch.equal(getattr(other, PROJECTION).weight, getattr(student, PROJECTION).weight)


def test_a_sharded_projection_is_read_too(tmp_path):
    student, other = narrow(0), narrow(1)
    write_state(student, weight_of(1.0), tmp_path, writes=True)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        fully_shard(getattr(other, PROJECTION), mesh=init_device_mesh("cpu", (1,)))
        read_state(other, HiddenWeight(None), tmp_path)
        told = getattr(other, PROJECTION).weight.full_tensor()
    finally:
        torch.distributed.destroy_process_group()
    assert torch.equal(told, getattr(student, PROJECTION).weight)


def test_one_rank_writes(tmp_path):
    write_state(narrow(0), weight_of(1.0), tmp_path, writes=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_the_state(tmp_path):
    with pytest.raises(InputError, match=f"has no {STATE}: it was not written by a KDTrainer that compares"):
        read_state(narrow(0), HiddenWeight(None), tmp_path)


def test_checkpoints_are_without_the_projection():
    student = narrow(0)
    kept = without_projection(student.state_dict())
    assert student.state_dict().keys() - kept.keys() == {f"{PROJECTION}.weight"}
    assert without_projection(None) is None
