import pytest
from datasets import Dataset, Json, Value

from trl_prune.data.columns import arrow_column, dataset_from_rows, with_columns
from trl_prune.errors import InputError


CALLS = [
    [{"name": "look_up", "arguments": {"word": "ice"}}],
    [{"name": "add", "arguments": {"b": 2, "a": 1.5, "note": None}}],
]


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b"],
        [1, 2.5],
        [3, "3", [3], None, "null", "[1]"],
        [{"a": 1}, {"a": 2}],
        [{"a": 1}, {"a": 2.0}],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [{"a": 0.123456789012}, {"b": 1}],
        [True, 1],
        CALLS,
        [[], [1]],
    ],
)
def test_values_come_out_as_they_stood(values):
    dataset = Dataset.from_dict({"x": arrow_column("x", values)})
    assert repr(list(dataset["x"])) == repr(values)


def test_only_values_that_arrow_would_change_are_json():
    rows = dataset_from_rows([{"calls": CALLS[0], "n": 1, "t": "a"}, {"calls": CALLS[1], "t": "b"}])
    assert rows.features["calls"] == Json()
    assert (rows.features["n"], rows.features["t"]) == (Value("int64"), Value("string"))
    assert rows["n"][:] == [1, None]


def test_what_cannot_be_stored_is_named():
    with pytest.raises(InputError, match="row 1, column 'x', holds .*, which cannot be stored"):
        arrow_column("x", ["a", [10**30]])


def test_columns_are_added_replaced_and_left_out_beside_stored_ones():
    rows = Dataset.from_dict({"a": [1, 2], "b": ["x", "y"], "c": [0, 0]})
    changed = with_columns(rows, {"b": ["z", [1]], "d": [None, "w"]}, without=["c"])
    assert list(changed) == [{"a": 1, "b": "z", "d": None}, {"a": 2, "b": [1], "d": "w"}]
    assert list(with_columns(rows, {"b": ["z", "z"]}, without=["a", "c"])) == [{"b": "z"}] * 2
