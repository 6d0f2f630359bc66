import pytest
import torch

from trl_prune.trainers.kd.hidden_weight import LARGEST, HiddenWeight


def sums(kd, hidden):
    return torch.tensor([4.0, 9.0, kd, hidden, 0.0, 0.0])


def test_it_is_the_ratio_of_the_step_before():
    weight = HiddenWeight(None)
    assert weight.is_unknown
    weight.observe(sums(2.0, 1.0), kd_weight=1.0)
    weight.observe(sums(4.0, 3.0), kd_weight=1.0)
    assert not weight.is_unknown
    assert weight.value == 0
    weight.update()
    assert weight.value == pytest.approx(6 / 4)
    weight.update()
    assert weight.value == pytest.approx(6 / 4)
    weight.observe(sums(1.0, 2.0), kd_weight=0.5)
    weight.update()
    assert weight.value == pytest.approx(0.25)


def settled(kd, hidden):
    weight = HiddenWeight(None)
    weight.observe(sums(kd, hidden), kd_weight=1.0)
    weight.update()
    return weight.value


def test_states_that_agree_are_left_alone():
    """Else the first step that moves them would pay the ratio of a divergence to rounding."""
    assert settled(1.0, 0.0) == 0
    assert settled(1.0, 3e-6) == 0
    assert settled(0.0, 0.0) == 0


def test_it_has_a_bound():
    assert settled(1.0, 1e-2) == LARGEST


def test_a_constant_stays():
    weight = HiddenWeight(0.3)
    weight.observe(sums(1.0, 1.0), kd_weight=1.0)
    weight.update()
    assert weight.value == 0.3
    assert not weight.is_unknown
