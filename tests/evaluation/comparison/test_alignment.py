"""Items are matched by their documents' hashes, whatever their order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.errors import InputError
from trl_prune.evaluation.comparison.alignment import align
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import unique_keys


def score(values, hashes=None, **others):
    return TaskScore("t", others.pop("metric", "acc"), list(values), doc_hashes=hashes, **others)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12), st.randoms())
def test_shuffled_items_are_brought_back_in_order(hashes, shuffle: random.Random):
    keys = unique_keys(hashes)
    items = [float(position) for position in range(len(keys))]
    order = list(range(len(keys)))
    shuffle.shuffle(order)
    shuffled = score([items[one] for one in order], [keys[one] for one in order], loops=[items[one] for one in order])
    aligned, notes = align({"dense": {"t": score(items, keys)}, "other": {"t": shuffled}})
    assert notes == []
    assert aligned["other"]["t"].items == aligned["dense"]["t"].items == items
    assert aligned["other"]["t"].loops == items
    assert aligned["other"]["t"].doc_hashes == keys


def test_items_and_tasks_that_not_all_have_are_left_out_and_named():
    one = {"t": score([1, 0, 1], ["a", "b", "c"]), "u": score([1])}
    two = {"t": score([0, 1, 1], ["c", "d", "b"])}
    aligned, notes = align({"one": one, "two": two})
    assert (aligned["one"]["t"].items, aligned["two"]["t"].items) == ([0, 1], [1, 0])
    assert notes == [
        "task 'u' is left out: only one of the 2 results has it",
        "task 't': 2 of 4 items are not in all results and are left out",
    ]


def test_documents_that_come_twice_are_matched_by_occurrence():
    aligned, _ = align({"one": {"t": score([1, 0], ["a", "a"])}, "two": {"t": score([0, 1, 1], ["a", "b", "a"])}})
    assert (aligned["one"]["t"].items, aligned["two"]["t"].items) == ([1, 0], [0, 1])


def test_scores_of_one_run_without_hashes_are_matched_by_position():
    aligned, notes = align({"one": {"t": score([1, 0])}, "two": {"t": score([0, 0])}})
    assert aligned["two"]["t"].items == [0, 0]
    assert notes == []


@pytest.mark.parametrize(
    ("one", "two", "sentence"),
    [
        ({"t": score([1])}, {"u": score([1])}, r"have no task in common \(one: t; two: u\)"),
        ({"t": score([1], ["a"])}, {"t": score([1], ["b"])}, "task 't' has no item that is in all results"),
        ({"t": score([1])}, {"t": score([1], metric="f1")}, r"different metrics \(one: acc, two: f1\)"),
        ({"t": score([1], ["a"])}, {"t": score([1])}, "no document hashes in some results"),
        ({"t": score([1, 1])}, {"t": score([1])}, "no document hashes in some results"),
    ],
)
def test_results_that_cannot_be_matched_are_refused(one, two, sentence):
    with pytest.raises(InputError, match=sentence):
        align({"one": one, "two": two})
