"""KDTrainer passes on two processes; a trainer that divides by their number fails."""

import pytest

from tests.trainers.conformance.test_checks import build
from trl_prune import KDTrainer
from trl_prune.trainers.conformance import Case, ConformanceError, check_processes


class DividedByProcesses(KDTrainer):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) / self.accelerator.num_processes


class Bypassing(KDTrainer):
    """Its forward goes past the wrapper of DDP, whose hooks average the gradients."""

    def compute_loss(self, model, *args, **kwargs):
        return super().compute_loss(self.accelerator.unwrap_model(model), *args, **kwargs)


def build_bypassing(case: Case) -> KDTrainer:
    return build(case, Bypassing)


def build_divided(case: Case) -> KDTrainer:
    return build(case, DividedByProcesses)


@pytest.mark.slow
def test_two_processes_conform(tmp_path):
    check_processes("tests.trainers.conformance.test_checks:build", tmp_path)


@pytest.mark.slow
def test_a_loss_divided_by_the_number_of_processes_is_found(tmp_path):
    with pytest.raises(ConformanceError, match="of two processes differs from that of one: 0.5000 times as long"):
        check_processes("tests.trainers.conformance.test_processes:build_divided", tmp_path)


@pytest.mark.slow
def test_a_forward_past_the_wrapper_of_ddp_is_found(tmp_path):
    with pytest.raises(ConformanceError, match="different weights: their gradients were not averaged"):
        check_processes("tests.trainers.conformance.test_processes:build_bypassing", tmp_path)


@pytest.mark.slow
def test_processes_that_fail_are_reported(tmp_path):
    with pytest.raises(ConformanceError, match="(?s)1 processes fail: .*No module named 'no_such_module'"):
        check_processes("no_such_module:build", tmp_path)
