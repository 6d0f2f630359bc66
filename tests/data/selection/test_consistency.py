from itertools import combinations, islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.selection.concepts import Concepts
from trl_prune.data.selection.consistency import (
    CONSISTENCY,
    Candidates,
    ConceptGraph,
    ConsistencyFilter,
    recorded_rejections,
)


ROWS = st.lists(st.sets(st.integers(0, 7), max_size=5).map(sorted), min_size=1, max_size=25)


def concepts_of(rows):
    """Concepts from each row's ids."""
    ids = np.array([concept for row in rows for concept in row], dtype=np.int32)
    return Concepts(np.cumsum([0, *map(len, rows)]), ids, [f"name {index}" for index in range(8)])


def candidates_of(rows, scores=None):
    scores = np.linspace(1, 0, len(rows)) if scores is None else np.array(scores)
    order = np.argsort(-scores, kind="stable")
    return Candidates(3, order, scores[order])


def conflicts_by_definition(row, accepted):
    """Pairs of a row of which both are in accepted rows, but never in one."""
    known = set().union(*accepted)
    return [
        (a, b)
        for a, b in combinations(row, 2)
        if {a, b} <= known and not any({a, b} <= set(other) for other in accepted)
    ]


@given(ROWS)
def test_conflicts_are_known_concepts_that_were_never_together(rows):
    graph, accepted = ConceptGraph(), []
    for row in rows:
        expected = conflicts_by_definition(row, accepted)
        assert graph.conflicts(row) == expected
        assert graph.first_conflict(row) == next(iter(expected), None)
        pairs = len(row) * (len(row) - 1) / 2
        assert graph.conflict_share(row) == (len(expected) / pairs if pairs else 0)
        graph.add(row)
        accepted.append(row)


def test_a_single_concept_becomes_known():
    graph = ConceptGraph()
    graph.add([1])
    graph.add([2])
    assert graph.conflicts([1, 2]) == [(1, 2)]


@given(ROWS)
def test_rows_with_a_conflict_are_rejected_and_recorded(rows):
    record = ConsistencyFilter(concepts_of(rows))
    chosen = list(CONSISTENCY["hard"](candidates_of(rows), record))
    accepted, rejected = [], []
    for position, row in enumerate(rows):
        conflicts = conflicts_by_definition(row, [rows[other] for other in accepted])
        if conflicts:
            rejected.append((position, conflicts[0]))
        else:
            accepted.append(position)
    assert chosen == accepted
    rejections = recorded_rejections(record, np.arange(len(rows)) + 100)
    assert len(rejections) == len(rejected)
    assert rejections.clusters.tolist() == [3] * len(rejected)
    assert rejections.examples(2) == [
        {"row": position + 100, "cluster": 3, "conflict": [f"name {a}", f"name {b}"]}
        for position, (a, b) in rejected[:2]
    ]


@given(ROWS, st.data())
def test_soft_ranking_is_the_lazy_one_by_definition(rows, data):
    scores = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=len(rows), max_size=len(rows)))
    known, accepted = dict(enumerate(scores)), []
    while known:  # the row of the highest last known product, computed anew until it stays ahead
        best = min(known, key=lambda row: (-known[row], candidate_rank(scores, row)))
        pairs = len(rows[best]) * (len(rows[best]) - 1) / 2
        conflicts = conflicts_by_definition(rows[best], [rows[other] for other in accepted])
        product = scores[best] * (1 - (len(conflicts) / pairs if pairs else 0))
        others = [(-known[row], candidate_rank(scores, row)) for row in known if row != best]
        if others and min(others) < (-product, candidate_rank(scores, best)):
            known[best] = product
        else:
            accepted.append(best)
            del known[best]
    record = ConsistencyFilter(concepts_of(rows))
    assert list(CONSISTENCY["soft"](candidates_of(rows, scores), record)) == accepted
    assert len(record.rejected) == 0


def candidate_rank(scores, row):
    return sorted(range(len(scores)), key=lambda other: (-scores[other], other)).index(row)


def test_soft_ranking_prefers_a_row_without_conflict():
    rows = [[0, 1], [2, 3], [0, 2], [4, 5]]
    stream = CONSISTENCY["soft"](candidates_of(rows, [4.0, 3.0, 2.0, 1.0]), ConsistencyFilter(concepts_of(rows)))
    assert list(stream) == [0, 1, 3, 2]


def test_without_a_filter_rows_come_by_score():
    rows = [[0, 1], [0], [1], [0, 1]]
    assert list(CONSISTENCY["off"](candidates_of(rows, [1, 4, 3, 2]), ConsistencyFilter(None))) == [1, 2, 3, 0]


def test_a_stream_goes_on_where_it_stopped_and_sees_what_others_accepted():
    rows = [[0, 1], [2], [0, 2]]
    record = ConsistencyFilter(concepts_of(rows))
    stream = CONSISTENCY["hard"](candidates_of(rows), record)
    assert list(islice(stream, 1)) == [0]
    record.graph.add([2])
    assert list(stream) == [1]
    assert record.num_rejected(4).tolist() == [0, 0, 0, 1]
