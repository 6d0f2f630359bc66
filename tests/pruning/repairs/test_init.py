"""The table of repairs, their options and the errors on invalid ones."""

from pathlib import Path

import pytest

from trl_prune.checkpoints import file_hash, read_provenance
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.repairs import REPAIRS, applicable_repairs, check_repairs, default_options, read_texts


def test_unknown_repair(repair_case):
    with pytest.raises(
        InputError, match="'heal' is not a repair; allowed: head_merge, least_squares, linear_map, magnitude, norm"
    ):
        repair_case().repairs({HIDDEN: [0, 1, 2, 3]}, {"heal": {}})


def test_unknown_option(repair_case):
    with pytest.raises(InputError, match="norm_rescale has no option 'by'; allowed: energy"):
        repair_case().repairs({HIDDEN: [0, 1, 2, 3]}, {"norm_rescale": {"by": 2}})


def test_head_merge_and_least_squares_of_heads_exclude_each_other(repair_case):
    with pytest.raises(InputError, match="choose one of the two"):
        repair_case().repairs({HEADS: [[0, 2]] * 4}, {"head_merge": {}, "least_squares": {}})


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"least_squares": {}, "linear_map": {}}, "the plan keeps every block"),
        ({"least_squares": {"ridge": 0.0}}, "least_squares.ridge is 0.0; wanted: a number above 0"),
        ({"least_squares": {"axes": [HIDDEN]}}, "least_squares repairs cuts of hidden_size; the plan cuts"),
        ({"least_squares": {"axes": ["heads"]}}, "least_squares.axes names 'heads'; allowed"),
        ({"least_squares": {"axes": []}}, "least_squares repairs cuts of no axis"),
        ({"linear_map": {"ridge": -1}}, "linear_map.ridge is -1; wanted: a number above 0"),
        ({"norm_rescale": {"energy": "all"}}, "norm_rescale.energy is 'all'; allowed: none, measured"),
    ],
)
def test_invalid_repairs_raise_before_a_model_is_loaded(requested, message, repair_case):
    dense = repair_case()
    with pytest.raises(InputError, match=message):
        check_repairs(requested, dense.dense_dir, dense.cut({NEURONS: [[0, 1]] * 4}))


def test_options_are_the_keyword_arguments_of_build():
    assert {name: sorted(default_options(name)) for name in REPAIRS} == {
        "head_merge": ["scale"],
        "least_squares": ["axes", "ridge"],
        "linear_map": ["ridge"],
        "magnitude": [],
        "norm_rescale": ["energy"],
    }


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({}, False),
        ({"head_merge": {}, "norm_rescale": {}}, False),
        ({"norm_rescale": {"energy": "measured"}}, True),
        ({"linear_map": {}}, True),
        ({"least_squares": {}}, True),
    ],
)
def test_fitted_repairs_read_texts(requested, expected):
    assert read_texts(requested) == expected


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        ({HIDDEN: [0, 1, 2, 3]}, ["least_squares", "norm_rescale"]),
        ({NEURONS: [[0, 1]] * 4}, ["least_squares"]),
        ({HEADS: [[0, 2]] * 4}, ["head_merge", "least_squares"]),
        ({LAYERS: [0, 1, 3]}, ["linear_map", "magnitude"]),
        ({LAYERS: [1, 3]}, ["linear_map", "magnitude"]),
        ({LAYERS: [2, 3]}, ["magnitude"]),
        ({LAYERS: [0, 1]}, ["linear_map"]),
    ],
)
def test_applicable_repairs(keep, names, repair_case):
    dense = repair_case()
    assert applicable_repairs(dense.dense_dir, dense.cut(keep)) == names


def test_a_repair_does_not_affect_later_cuts(repair_case):
    dense = repair_case()
    keep = {NEURONS: [list(range(20))] * 4}
    dense.pruned(keep, {}, "first")
    dense.pruned(keep, {"least_squares": {}}, "repaired")
    dense.pruned(keep, {}, "second")
    first, second, repaired = (
        file_hash(Path(dense.folder) / name / "model.safetensors") for name in ("first", "second", "repaired")
    )
    assert first == second != repaired
    assert read_provenance(dense.folder / "first").edits == []
