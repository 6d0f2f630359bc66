"""Segments of random cuts, against their definition block by block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.errors import InputError
from trl_prune.trainers.local_kd.segments import Segment, cut_segments


def test_the_blocks_of_a_cut_in_the_middle():
    assert cut_segments([0, 1, 2, 6, 7, 8], 9, after=2) == [Segment(range(2, 5), 1, (5, 6, 7))]
    assert cut_segments([0, 1, 2, 6, 7, 8], 9, after=0) == [Segment(range(2, 3), 1, (5,))]


def test_cuts_at_the_ends_have_one_side():
    assert cut_segments([0, 1], 4, after=1) == [Segment(range(1, 2), 0, (3,))]
    assert cut_segments([2, 3], 4, after=1) == [Segment(range(1), None, (2,))]


def test_a_cut_at_the_start_trains_the_first_block_at_least():
    assert cut_segments([2, 3], 4, after=0) == [Segment(range(1), None, (2,))]


def test_runs_that_touch_are_one():
    assert cut_segments([0, 2, 4, 5], 6, after=1) == [Segment(range(3), None, (1, 3, 4))]


def test_a_whole_model_has_none():
    with pytest.raises(InputError, match="none was removed"):
        cut_segments([0, 1, 2], 3, after=2)


@given(st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_every_block_next_to_a_cut_is_in_one_segment(cut):
    num_blocks, kept = cut
    keep, after = sorted(kept), 2
    if len(keep) == num_blocks:
        return
    segments = cut_segments(keep, num_blocks, after)
    blocks = [block for segment in segments for block in segment.blocks]
    assert blocks == sorted(set(blocks))
    for block in range(len(keep)):
        following = keep[block + 1] if block + 1 < len(keep) else num_blocks
        is_before = following > keep[block] + 1
        previous = [-1, *keep]
        is_behind = any(previous[b + 1] > previous[b] + 1 for b in range(max(block - after + 1, 0), block + 1))
        assert (block in blocks) == (is_before or is_behind)
    for segment in segments:
        first = segment.blocks.start
        assert segment.source == (None if first == 0 else keep[first] - 1)
        assert not {first - 1, segment.blocks.stop} & set(blocks), "segments that touch are one"
        for block, target in zip(segment.blocks, segment.targets, strict=True):
            assert target + 1 == (keep[block + 1] if block + 1 < len(keep) else num_blocks)
