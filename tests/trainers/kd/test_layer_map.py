import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.trainers.intermediate_states import StatePoint
from trl_prune.trainers.kd.layer_map import Pairs, block_pairs, points_to_compare, states_to_compare


def cut(keep):
    return Provenance({"path": "dense"}, "dense", {"num_hidden_layers": keep}, [], {})


def test_the_papers_pair_where_nothing_is_known():
    """32 blocks to 16: 29 with 13 (arXiv 2407.14679, table 17)."""
    assert block_pairs("auto", 16, 32, None) == {13: 29}
    assert block_pairs("auto", 2, 4, None) == {0: 1}


def test_a_kept_block_goes_with_its_own_origin():
    assert block_pairs("auto", 4, 8, cut([0, 5, 6, 7])) == {1: 5}
    assert block_pairs("origins", 4, 8, cut([0, 1, 6, 7])) == {0: 0, 1: 1, 2: 6, 3: 7}


def test_a_block_that_nothing_was_cut_before_goes_with_the_papers():
    """Its origin says the same as it does, so there would be nothing to learn."""
    assert block_pairs("auto", 4, 8, cut([0, 1, 6, 7])) == {1: 5}
    edited = Provenance({}, "dense", {"num_hidden_layers": [0, 1, 6, 7]}, [{"kind": "linear_map"}], {})
    narrow = Provenance({}, "dense", {"num_hidden_layers": [0, 1, 6, 7], "hidden_size": [0, 2]}, [], {})
    assert block_pairs("auto", 4, 8, edited) == block_pairs("auto", 4, 8, narrow) == {1: 1}


def test_origins_want_a_provenance_that_fits():
    for provenance in (None, cut([0, 1]), cut([0, 1, 2, 9])):
        with pytest.raises(InputError, match="layer_map is 'origins', but the student has no provenance"):
            block_pairs("origins", 4, 8, provenance)


@given(st.integers(1, 60), st.integers(1, 60))
def test_pairs_are_always_blocks_of_both_models(student, teacher):
    ((ours, theirs),) = block_pairs("auto", student, teacher, None).items()
    assert 0 <= ours < student
    assert 0 <= theirs < teacher


@pytest.mark.parametrize(
    ("told", "student", "states"),
    [
        ("auto", 24, ["embedding", "block"]),
        ("auto", 25, []),
        ("none", 10, []),
        (["mlp"], 32, ["mlp"]),
    ],
)
def test_states_are_compared_where_a_quarter_of_the_blocks_went(told, student, states):
    assert states_to_compare(told, student, 32) == states


def test_points():
    assert points_to_compare(["embedding", "block"], {1: 2, 3: 7}) == Pairs(
        (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3)),
        (StatePoint("embedding", 0), StatePoint("block", 2), StatePoint("block", 7)),
    )


def test_keys_from_json_are_numbers():
    assert block_pairs({"1": "3"}, 2, 4, None) == {1: 3}
