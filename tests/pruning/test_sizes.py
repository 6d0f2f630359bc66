"""Rounding, and what is said of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.pruning.families import HEADS, HIDDEN, NEURONS
from trl_prune.pruning.sizes import hidden_multiple, nearest_multiple, round_sizes


@given(st.integers(1, 5000), st.sampled_from([1, 2, 64, 128, 256]), st.integers(1, 5000))
def test_nearest_multiple(size, multiple, largest):
    size = min(size, largest)
    told = nearest_multiple(size, multiple, largest)
    assert 0 < told <= largest
    if size == largest:
        assert told == largest
    elif multiple <= largest:
        assert told % multiple == 0
        others = list(range(multiple, largest + 1, multiple))
        assert abs(told - size) == min(abs(other - size) for other in others)


def test_round_sizes_says_what_it_costs():
    dense = {HIDDEN: 576, NEURONS: 1536, HEADS: 9}
    asked = {HIDDEN: 450, NEURONS: 1013, HEADS: 6}
    rounded = round_sizes(asked, dense, lambda sizes: sizes[HIDDEN] * sizes[NEURONS])
    assert rounded.sizes == {HIDDEN: 432, NEURONS: 1024, HEADS: 6}
    assert rounded.sentence == (
        "rounded hidden_size 450 -> 432, intermediate_size 1,013 -> 1,024: 455,850 -> 442,368 parameters (-2.96%)"
    )


@pytest.mark.parametrize(
    ("heads", "dense", "multiple"),
    [(32, 4096, 64), (9, 576, 72), (8, 3072, 64), (48, 6144, 192), (4, 32, 4), (5, 20, 5)],
)
def test_hidden_sizes_are_multiples_of_the_heads(heads, dense, multiple):
    assert hidden_multiple(heads, dense) == multiple
    assert multiple % heads == 0


def test_round_sizes_is_silent_where_nothing_changes():
    asked = {HIDDEN: 504, NEURONS: 1536}
    assert round_sizes(asked, {HIDDEN: 576, NEURONS: 1536, HEADS: 9}, lambda _: 1).sentence == ""
