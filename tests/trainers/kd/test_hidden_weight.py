import pytest
import torch

from trl_prune.trainers.kd.hidden_weight import MAX_WEIGHT, HiddenWeight
from trl_prune.trainers.kd.metrics import SUMS


def sums(kd_loss, hidden_loss):
    """Return a batch's sums over 4 positions."""
    values = dict.fromkeys(SUMS, 0.0) | {"num_positions": 4.0, "ce_loss": 9.0}
    return torch.tensor(list((values | {"kd_loss": kd_loss, "hidden_loss": hidden_loss}).values()))


def test_it_is_the_ratio_of_the_previous_step():
    weight = HiddenWeight(None)
    assert weight.needs_first_measurement
    weight.observe(sums(2.0, 1.0), kd_weight=1.0)
    weight.observe(sums(4.0, 3.0), kd_weight=1.0)
    assert not weight.needs_first_measurement
    assert weight.value == 0
    weight.update()
    assert weight.value == pytest.approx(6 / 4)
    weight.update()
    assert weight.value == pytest.approx(6 / 4)
    weight.observe(sums(1.0, 2.0), kd_weight=0.5)
    weight.update()
    assert weight.value == pytest.approx(0.25)


def weight_after(kd_loss, hidden_loss):
    weight = HiddenWeight(None)
    weight.observe(sums(kd_loss, hidden_loss), kd_weight=1.0)
    weight.update()
    return weight.value


def test_equal_states_have_weight_zero():
    """Else the first step that changes them would have the ratio of a divergence to rounding as its weight."""
    assert weight_after(1.0, 0.0) == 0
    assert weight_after(1.0, 3e-6) == 0
    assert weight_after(0.0, 0.0) == 0


def test_it_is_bounded():
    assert weight_after(1.0, 1e-2) == MAX_WEIGHT


def test_a_constant_does_not_change():
    weight = HiddenWeight(0.3)
    weight.observe(sums(1.0, 1.0), kd_weight=1.0)
    weight.update()
    assert weight.value == 0.3
    assert not weight.needs_first_measurement
