import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.checkpoints import Provenance
from trl_prune.errors import InputError
from trl_prune.trainers.intermediate_states import StatePoint
from trl_prune.trainers.kd.layer_map import StatePairs, block_pairs, compared_states, points_of_blocks


def pruned_to(layers):
    return Provenance({"path": "dense"}, "dense", {"num_hidden_layers": layers}, [], {})


def test_without_provenance_it_is_the_papers_pair():
    """32 blocks to 16: 29 with 13 (arXiv 2407.14679, table 17)."""
    assert block_pairs("auto", 16, 32, None) == {13: 29}
    assert block_pairs("auto", 2, 4, None) == {0: 1}


def test_a_kept_block_is_compared_with_its_original_block():
    assert block_pairs("auto", 4, 8, pruned_to([0, 5, 6, 7])) == {1: 5}
    assert block_pairs("origins", 4, 8, pruned_to([0, 1, 6, 7])) == {0: 0, 1: 1, 2: 6, 3: 7}


def test_a_block_before_all_removed_ones_is_compared_with_the_papers():
    """Its output equals that of the block it was, so there would be nothing to learn."""
    assert block_pairs("auto", 4, 8, pruned_to([0, 1, 6, 7])) == {1: 5}
    edited = Provenance({}, "dense", {"num_hidden_layers": [0, 1, 6, 7]}, [{"kind": "linear_map"}], {})
    narrow = Provenance({}, "dense", {"num_hidden_layers": [0, 1, 6, 7], "hidden_size": [0, 2]}, [], {})
    assert block_pairs("auto", 4, 8, edited) == block_pairs("auto", 4, 8, narrow) == {1: 1}


def test_origins_need_a_provenance_that_fits():
    for provenance in (None, pruned_to([0, 1]), pruned_to([0, 1, 2, 9])):
        with pytest.raises(InputError, match="layer_map is 'origins', but the student has no provenance"):
            block_pairs("origins", 4, 8, provenance)


@given(st.integers(1, 60), st.integers(1, 60))
def test_pairs_are_always_blocks_of_both_models(student_blocks, teacher_blocks):
    ((student, teacher),) = block_pairs("auto", student_blocks, teacher_blocks, None).items()
    assert 0 <= student < student_blocks
    assert 0 <= teacher < teacher_blocks


@pytest.mark.parametrize(
    ("hidden_loss", "student_blocks", "states"),
    [
        ("auto", 24, ["embedding", "block"]),
        ("auto", 25, []),
        ("none", 10, []),
        (["mlp"], 32, ["mlp"]),
    ],
)
def test_states_are_compared_where_a_quarter_of_the_blocks_is_removed(hidden_loss, student_blocks, states):
    assert compared_states(hidden_loss, student_blocks, 32) == states


def test_points():
    assert points_of_blocks(["embedding", "block"], {1: 2, 3: 7}) == StatePairs(
        (StatePoint("embedding", 0), StatePoint("block", 1), StatePoint("block", 3)),
        (StatePoint("embedding", 0), StatePoint("block", 2), StatePoint("block", 7)),
    )


def test_keys_from_json_are_converted_to_numbers():
    assert block_pairs({"1": "3"}, 2, 4, None) == {1: 3}
