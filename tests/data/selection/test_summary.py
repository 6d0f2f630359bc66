"""The figures of a selection against counts by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.selection.clustering import Clustering
from trl_prune.data.selection.concepts import Concepts
from trl_prune.data.selection.methods import Request, select
from trl_prune.data.selection.paser import PaserSettings
from trl_prune.data.selection.pool import Pool
from trl_prune.data.selection.selection_run import SelectionResult, SelectionRows, SelectionSettings, SelectionSpec
from trl_prune.data.selection.summary import EXAMPLES, example_positions, pool_table, selection_summary


# Ten candidates, the even ones of twenty rows; cluster 1 broke most, and cluster 2 has no answer.
CLUSTERS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 2]
DIVERGENCE = [0.1, 0.1, 0.3, 0.0, 0.0, 0.4, 0.2, 0.5, 0.1, np.nan]
# The rows of cluster 1 of which the second and the third contradict the first accepted ones.
CONCEPTS = [[]] * 5 + [[0, 1], [0, 2], [2, 3], [4], []]
NAMES = ["two", "four", "six", "eight", "ten"]


def planted_pool():
    ids = [concept for row in CONCEPTS for concept in row]
    return Pool(
        rows=2 * np.arange(10),
        tokens=np.arange(10, 20),
        answer_tokens=np.arange(1, 11),
        divergence=np.array(DIVERGENCE),
        clusters=np.array(CLUSTERS, dtype=np.int32),
        concepts=Concepts(np.cumsum([0, *map(len, CONCEPTS)]), np.array(ids, dtype=np.int32), NAMES),
    )


def planted_clustering(strengths=None):
    plane = np.stack([np.arange(10), -np.arange(10)], axis=1).astype(np.float32)
    return Clustering(np.array(CLUSTERS, dtype=np.int32), 3, 0.9, 0.25, plane, strengths or {})


def planted_case(methods=("paser", "random"), pool=None, clustering=None, budget=5, consistency="hard"):
    """The arguments of a summary: selections by each method from the planted rows."""
    pool = planted_pool() if pool is None else pool
    paser = PaserSettings(consistency=consistency, ranking="divergence")
    selections = {name: select(name, pool, Request(budget, paser=paser)) for name in methods}
    phrases = [] if pool.clusters is None else [[f"phrase {label}", "a | b"] for label in range(pool.num_clusters)]
    rows = SelectionRows(
        instructions=[f"instruction {row}" for row in range(20)],
        texts=[""] * 20,
        prepared=(),
        prepared_rows=pool.rows,
        tokens=pool.tokens,
        answer_tokens=pool.answer_tokens,
    )
    settings = SelectionSettings({name: SelectionSpec(name, budget, paser=paser) for name in methods})
    return SelectionResult(selections, pool, clustering, phrases, 4, 6, {}), rows, settings


def case_with_clusters(strengths=None, **changes):
    return planted_case(clustering=planted_clustering(strengths), **changes)


def case_of_one_cluster():
    return planted_case(pool=replace(planted_pool(), clusters=np.zeros(10, dtype=np.int64)), consistency="soft")


def case_without_clusters():
    return planted_case(("random",), Pool(*(getattr(planted_pool(), name) for name in ("rows", "tokens", "tokens"))))


def test_clusters_are_counted_and_come_by_falling_degradation():
    selected, rows, settings = case_with_clusters()
    found = selection_summary(selected, rows, settings)
    assert found["pool"] == {"rows": 20, "candidates": 10, "duplicates": 4, "without_answer": 6}
    names = ("cluster", "rows", "budget", "selected", "rejected", "phrases")
    # the mean divergences of 0.3 and 0.1 divide a budget of 5 into 3.75 and 1.25
    assert [[cluster[name] for name in names] for cluster in found["clusters"]] == [
        [1, 4, 4, 3, 1, ["phrase 1", "a | b"]],
        [0, 5, 1, 2, 0, ["phrase 0", "a | b"]],
        [2, 1, 0, 0, 0, ["phrase 2", "a | b"]],
    ]
    assert [cluster["degradation"] for cluster in found["clusters"]] == [pytest.approx(0.3), pytest.approx(0.1), None]
    # row 14 has concepts six and eight, row 10 two and four: row 12 would be the first with both two and six
    assert found["rejections"] == {"count": 1, "examples": [{"row": 12, "cluster": 1, "conflict": ["two", "six"]}]}
    figures = [(one["name"], one["method"], one["rejected"]) for one in found["selections"]]
    assert figures == [("paser", "paser", 1), ("random", "random", None)]


@pytest.mark.parametrize("method", ["random", "longest"])
def test_a_first_selection_without_budgets_by_cluster_is_counted_by_cluster(method):
    selected, rows, settings = case_with_clusters(methods=(method, "paser"))
    found = selection_summary(selected, rows, settings)
    chosen = selected.own.rows.tolist()
    assert [cluster["cluster"] for cluster in found["clusters"]] == [1, 0, 2]
    for cluster in found["clusters"]:
        members = [2 * position for position, label in enumerate(CLUSTERS) if label == cluster["cluster"]]
        assert cluster["rows"] == len(members)
        assert cluster["selected"] == len(set(members) & set(chosen))
        assert cluster["budget"] is cluster["rejected"] is None
    assert [cluster["degradation"] for cluster in found["clusters"]] == [pytest.approx(0.3), pytest.approx(0.1), None]
    assert found["rejections"] is None
    assert found["selections"][1]["rejected"] == 1


@pytest.mark.parametrize(
    ("strengths", "firm"), [({}, None), ({2: 0.3, 3: 0.8}, True), ({2: 0.3, 3: 0.6}, False), ({3: 0.7}, True)]
)
def test_a_number_of_clusters_is_firm_if_its_strength_is_enough(strengths, firm):
    clustering = selection_summary(*case_with_clusters(strengths))["clustering"]
    assert clustering["firm"] is firm
    assert {one["clusters"]: one["strength"] for one in clustering["strengths"]} == strengths
    assert (clustering["clusters"], clustering["stability"], clustering["error"]) == (3, 0.9, 0.25)


def test_rows_that_are_not_clustered_have_no_clustering():
    one = selection_summary(*case_of_one_cluster())
    assert one["clustering"] is None
    assert [(cluster["rows"], cluster["budget"], cluster["selected"]) for cluster in one["clusters"]] == [(10, 5, 5)]
    none = selection_summary(*case_without_clusters())
    assert (none["clustering"], none["clusters"], none["rejections"]) == (None, [], None)


@pytest.mark.parametrize("case", [case_with_clusters, case_of_one_cluster, case_without_clusters])
def test_a_summary_is_json(case):
    found = selection_summary(*case())
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_pool_has_coordinates_with_more_than_one_cluster():
    table = pool_table(case_with_clusters()[0])
    assert table["row"][:] == list(range(0, 20, 2))
    assert table["y"][:] == [-position for position in range(10)]
    selected = case_with_clusters()[0].own.rows.tolist()
    assert [row for row, chosen in zip(table["row"], table["selected"], strict=True) if chosen] == selected
    alone = Clustering(np.zeros(10, np.int32), 1, 1.0, 0.0, np.zeros((10, 2), np.float32), {})
    for selected in (case_of_one_cluster()[0], replace(case_of_one_cluster()[0], clustering=alone)):
        assert {"x", "y"}.isdisjoint(pool_table(selected).column_names)
        assert "cluster" in pool_table(selected).column_names
    assert pool_table(case_without_clusters()[0]).column_names == ["row", "tokens", "answer_tokens", "selected"]


def test_examples_are_typical_rows_and_the_most_degraded_one():
    clusters = selection_summary(*case_with_clusters())["clusters"]
    # medians of 0.1 and 0.3; the highest are the third row and the eighth
    assert {cluster["cluster"]: cluster["examples"] for cluster in clusters} == {
        0: ["instruction 0", "instruction 2", "instruction 4"],
        1: ["instruction 10", "instruction 12", "instruction 14"],
        2: [],
    }


@given(st.lists(st.one_of(st.integers(0, 1000), st.none()), max_size=30))
def test_typical_examples_are_the_nearest_to_the_median(values):
    divergence = np.array([np.nan if value is None else value for value in values], dtype=float)
    scored = [position for position, value in enumerate(values) if value is not None]
    examples = example_positions(divergence, np.arange(len(values))).tolist()
    assert len(examples) == len(set(examples)) == min(EXAMPLES, len(scored))
    if scored:
        median = np.median([values[position] for position in scored])
        assert values[examples[-1]] == max(values[position] for position in scored)
        others = sorted(abs(values[position] - median) for position in scored if position != examples[-1])
        assert [abs(values[position] - median) for position in examples[:-1]] == others[: EXAMPLES - 1]
