"""How a projection starts, and that checkpoints are without it."""

import torch

from tests.conftest import SIZES, tiny_model
from trl_prune.checkpoints import Provenance
from trl_prune.trainers.kd.projection import PROJECTION, attach_projection, without_projection


def test_known_channels_are_projected_to_their_original_indices():
    student, hidden_size = tiny_model("llama"), SIZES["hidden_size"]
    channels = list(range(1, 2 * hidden_size, 2))
    attach_projection(student, 2 * hidden_size, Provenance({}, "dense", {"hidden_size": channels}), seed=0)
    states = torch.randn(3, 2 * hidden_size)
    projected = getattr(student, PROJECTION)(states[:, channels])
    assert torch.equal(projected[:, channels], states[:, channels])
    assert projected.count_nonzero() == 3 * hidden_size


def test_a_projection_of_unknown_channels_starts_at_random_from_its_seed():
    students = [tiny_model("llama") for _ in range(3)]
    for student, seed in zip(students, (0, 0, 1), strict=True):
        attach_projection(student, 48, None, seed)
    first, same_seed, other_seed = (getattr(student, PROJECTION).weight for student in students)
    assert torch.equal(first, same_seed)
    assert not torch.equal(first, other_seed)


def test_equal_hidden_sizes_need_no_projection():
    student = tiny_model("llama")
    attach_projection(student, SIZES["hidden_size"], None, 0)
    assert not hasattr(student, PROJECTION)


def test_a_state_dict_without_the_projection():
    student = tiny_model("llama")
    attach_projection(student, 48, None, 0)
    state_dict = without_projection(student.state_dict())
    assert student.state_dict().keys() - state_dict.keys() == {f"{PROJECTION}.weight"}
    assert without_projection(None) is None
