import pytest

from trl_prune.data.generation.engine import in_groups
from trl_prune.data.generation.sampling import Answer


ANSWERS = [(index, Answer(str(index), True)) for index in (3, 0, 2, 1, 4)]


def test_groups_are_full_but_the_last():
    assert [list(group) for group in in_groups(ANSWERS, 2)] == [[3, 0], [2, 1], [4]]


def test_a_group_waits_no_longer_than_its_time():
    assert [list(group) for group in in_groups(ANSWERS, 10, seconds=-1)] == [[3], [0], [2], [1], [4]]


def test_what_arrived_before_a_failure_is_not_lost():
    def failing():
        yield from ANSWERS[:3]
        raise RuntimeError("gone")

    groups = in_groups(failing(), 2)
    assert [list(next(groups)), list(next(groups))] == [[3, 0], [2]]
    with pytest.raises(RuntimeError, match="gone"):
        next(groups)
